"""The training loop of the grounded UNet, on one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from reference_model.training.common import (
    Checkpoint,
    Ema,
    JsonlLog,
    load_checkpoint,
    save_checkpoint,
    step_generator,
    step_seed,
    write_recipe,
)
from reference_model.training.grounded_data import GroundedDataset
from reference_model.training.optim import Muon, split_parameters
from reference_model.training.recipe import UNetRecipe, changed_values, identity, learning_rate_factor
from reference_model.unet import InstanceUNet

__all__ = ["GroundedDenoiser", "LoopOptions", "Trainer", "run"]


class GroundedDenoiser(nn.Module):
    """UniFusion and UNet in one forward, as training (and its gradient exchange) needs them.

    Args:
        unet: The network.
    """

    def __init__(self, unet: InstanceUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        grounding: dict[str, Any],
        instance_masks: Tensor,
    ) -> Tensor:
        """Prediction of the network, [B, C, h, w]; see `UniFusion.forward` for the grounding."""
        tokens = self.unet.position_net(**grounding)
        output: Tensor = self.unet(
            sample,
            timestep,
            context,
            grounding_tokens=tokens,
            instance_masks=instance_masks,
            token_mask=grounding["masks"],
        ).sample
        return output


class Trainer:
    """State of one run on this process.

    Only parameters that ask for gradients are trained, averaged and saved in checkpoints; the frozen ones are
    those of the base.

    Args:
        accelerator: The processes.
        recipe: The numbers.
        dataset: Training samples.
        unet: The network; its device and memory format are set here.
        compiled: Whether `torch.compile` takes it.

    Raises:
        ValueError: If the batch does not divide among the processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        recipe: UNetRecipe,
        dataset: GroundedDataset,
        unet: InstanceUNet,
        compiled: bool,
    ) -> None:
        self.accelerator = accelerator
        self.recipe = recipe
        self.dataset = dataset
        self.unet = unet
        self.device = self.accelerator.device
        if recipe.batch_size % accelerator.num_processes:
            raise ValueError(
                f"batch_size: {recipe.batch_size} is not a multiple of {accelerator.num_processes} processes; "
                "change one of them"
            )
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        share = recipe.batch_size // self.world
        self.part_size = min(recipe.micro_batch or share, share)
        self.num_parts = recipe.batch_size // self.part_size
        if self.num_parts % self.world:
            raise ValueError(
                f"micro_batch: {self.num_parts} parts of {self.part_size} samples do not go round {self.world} "
                "processes; change batch_size or micro_batch"
            )
        # On its device before anything copies its weights: the average must live where they do.
        unet.to(self.device, memory_format=torch.channels_last)
        self.trained = [name for name, parameter in unet.named_parameters() if parameter.requires_grad]
        self.ema = Ema(unet, recipe.ema, self.trained, ramp=recipe.ema_ramp)
        if recipe.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        self.optimizers = _optimizers(unet, recipe, accelerator)
        schedule = DDPMScheduler(
            beta_schedule=recipe.beta_schedule,
            beta_start=recipe.beta_start,
            beta_end=recipe.beta_end,
            prediction_type=recipe.prediction_type,
        )
        self.alphas = schedule.alphas_cumprod.to(self.device)
        denoiser = GroundedDenoiser(unet)
        self.wrapped = self.accelerator.prepare_model(torch.compile(denoiser) if compiled else denoiser)

    def loss(self, step: int, part: int) -> Tensor:
        """Mean squared error of one part of a step's batch; depends on step, part and weights only."""
        rng = np.random.default_rng(step_seed(self.recipe.seed, step, 10 + part))
        generator = step_generator(self.recipe.seed, step, 1000 + part)
        batch = self.dataset.batch(rng.integers(len(self.dataset), size=self.part_size), rng)
        latents = batch.latents.to(self.device)
        moments = torch.rand(self.part_size, generator=generator)
        if self.recipe.stratified:
            # Over the whole step: lower variance than independent draws.
            places = torch.arange(self.part_size) * self.num_parts + part
            moments = (places + moments) / self.recipe.batch_size
        timesteps = (moments * len(self.alphas)).long().clamp(max=len(self.alphas) - 1).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        signal = self.alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self.alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        target = signal * noise - sigma * latents if self.recipe.prediction_type == "v_prediction" else noise
        noisy = (signal * latents + sigma * noise).contiguous(memory_format=torch.channels_last)
        dtype = None if self.recipe.autocast is None else getattr(torch, self.recipe.autocast)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            predicted = self.wrapped(
                noisy,
                timesteps,
                batch.context.to(self.device),
                _moved(batch.grounding, self.device),
                batch.instance_masks.to(self.device),
            )
        return functional.mse_loss(predicted.float(), target)

    def step(self, step: int) -> tuple[float, float]:
        """One optimizer step.

        Returns:
            Loss of this process and norm of the gradients.

        Raises:
            ValueError: If the loss is not finite; nothing was changed then.
        """
        rate = self.recipe.lr * learning_rate_factor(step, self.recipe)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        parts, total = range(self.rank, self.num_parts, self.world), 0.0
        for part in parts:
            # Processes exchange gradients once, with the last part.
            with nullcontext() if part == parts[-1] else self.accelerator.no_sync(self.wrapped):
                loss = self.loss(step, part)
                self.accelerator.backward(loss / len(parts))
            total += loss.item() / len(parts)
        if not math.isfinite(total):
            raise ValueError(f"step {step}: the loss is not finite; lower the rate, e.g. --set lr=1e-5")
        limit = float("inf") if self.recipe.clip is None else self.recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), limit)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.ema.update(self.unet, step)
        return total, float(norm)

    def save(self, folder: Path, step: int, seconds: float) -> None:
        """Saves a checkpoint (main process only)."""
        if self.accelerator.is_main_process:
            state = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
            weights = self.unet.state_dict()
            save_checkpoint(
                folder,
                Checkpoint(
                    step,
                    seconds,
                    identity(self.recipe),
                    {name: weights[name] for name in self.trained},
                    self.ema.shadow,
                    state,
                ),
            )
        self.accelerator.wait_for_everyone()

    def restore(self, folder: Path) -> tuple[int, float]:
        """Loads the newest checkpoint of the folder, if any.

        Returns:
            Steps done and seconds spent.

        Raises:
            ValueError: If the checkpoint is of another recipe.
        """
        checkpoint = load_checkpoint(folder)
        if checkpoint is None:
            return 0, 0.0
        changed = changed_values(self.recipe, checkpoint.recipe)
        if changed:
            raise ValueError(f"{folder}: holds a run with another {', '.join(changed)}; use another folder")
        if sorted(checkpoint.model) != sorted(self.trained):
            raise ValueError(f"{folder}: holds a run that trained other parts; use another folder")
        self.unet.load_state_dict(checkpoint.model, strict=False)
        self.ema.load(checkpoint.ema)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(checkpoint.optimizer[name])
        return checkpoint.step, checkpoint.seconds


def _optimizers(
    unet: InstanceUNet, recipe: UNetRecipe, accelerator: Accelerator
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers by name; those without parameters are left out."""
    matrices: list[nn.Parameter] = []
    others = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    decay = recipe.weight_decay
    if recipe.optimizer == "muon":
        matrices, others = split_parameters(unet)
        rank, world = accelerator.process_index, accelerator.num_processes
        optimizers["muon"] = Muon(matrices, recipe.lr, weight_decay=decay, rank=rank, world_size=world)
        decay = 0.0  # the rest are vectors and embeddings
    optimizers["adam"] = torch.optim.AdamW(others, recipe.lr, betas=recipe.betas, weight_decay=decay)
    return optimizers


def _moved(grounding: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: _moved(value, device)
        if isinstance(value, Mapping)
        else value.to(device)
        if value is not None
        else None
        for name, value in grounding.items()
    }


@dataclass(frozen=True)
class LoopOptions:
    """How a run is driven; nothing here changes the weights.

    Attributes:
        max_minutes: Stop, resumable, after this long; None runs to the last step.
        log_every: Steps per line of the log.
        checkpoint_minutes: Time between checkpoints.
    """

    max_minutes: float | None = None
    log_every: int = 25
    checkpoint_minutes: float = 3.0


def run(trainer: Trainer, folder: Path, options: LoopOptions) -> int:
    """Trains to the recipe's last step, from the newest checkpoint in the folder if there is one.

    Args:
        trainer: The run.
        folder: Receives ``log.jsonl``, checkpoints, and at the end ``unet/`` (averaged weights) and
            ``recipe.json``.
        options: When to log, save and stop.

    Returns:
        Steps done in all.

    Raises:
        ValueError: If the folder holds a run of another recipe, or the loss stops being finite.
    """
    recipe = trainer.recipe
    done, seconds_before = trainer.restore(folder)
    log = JsonlLog(folder / "log.jsonl")
    started = saved = time.monotonic()
    losses: list[float] = []

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    while done < recipe.steps:
        loss, norm = trainer.step(done)
        losses.append(loss)
        done += 1
        main_process = trainer.accelerator.is_main_process
        if main_process and done % options.log_every == 0:
            rate = len(losses) * recipe.batch_size / (time.monotonic() - started)
            recent = losses[-options.log_every :]
            log.write(
                step=done,
                seconds=round(seconds(), 1),
                loss=sum(recent) / len(recent),
                grad_norm=norm,
                rate=rate,
            )
        late = options.max_minutes is not None and time.monotonic() - started > options.max_minutes * 60
        due = time.monotonic() - saved > options.checkpoint_minutes * 60
        # All processes must agree on when to save and stop: the main process decides.
        flags = torch.tensor([float(late), float(due)], device=trainer.device)
        if trainer.accelerator.num_processes > 1:
            torch.distributed.broadcast(flags, src=0)
        if flags[1] > 0:
            trainer.save(folder, done, seconds())
            saved = time.monotonic()
        if flags[0] > 0:
            break
    trainer.save(folder, done, seconds())
    if trainer.accelerator.is_main_process:
        trainer.ema.copy_to(trainer.unet)
        trainer.unet.save_pretrained(folder / "unet")
        figures = {
            "loss": sum(losses[-200:]) / max(1, len(losses[-200:])),
            "samples": done * recipe.batch_size,
        }
        write_recipe(folder, recipe, steps=done, minutes=seconds() / 60, figures=figures)
    return done
