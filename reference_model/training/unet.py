"""Trains the grounded UNet on cached latents, alone or with several processes.

One process: ``python -m reference_model.training unet --data DIR …``; several:
``ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m reference_model.training unet --data DIR …``.

The schedule is warm-up, constant, linear cool-down. A run is resumed from its folder; the number of
steps may be changed when resuming (longer or shorter), everything else must stay.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

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
from reference_model.training.grounded_data import FormatRules, GroundedDataset, build_location_cache
from reference_model.training.optim import Muon, split_parameters
from reference_model.unet import InstanceUNet

__all__ = ["UNetRecipe", "learning_rate_factor", "main", "shapes_unet"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UNetRecipe:
    """Every number of the recipe.

    Attributes:
        steps: Optimizer steps.
        warmup: Steps of linear warm-up.
        cooldown: Last steps, over which the rate falls linearly to 0.
        batch_size: Samples per step over all processes.
        lr: Peak rate of Muon and AdamW.
        weight_decay: Decoupled decay of the weight matrices.
        clip: Largest gradient norm.
        ema: Largest decay of the averaged weights.
        gate: Start value of the gated layers' raw gates. The published zero suits a base that already
            draws; from scratch the gates start open.
        beta_schedule: Noise schedule of the diffusers scheduler.
        prediction_type: What the network predicts.
        channels: Channels per level.
        cross_attention: Which levels (from the finest) have attention, on the way down and up.
        attention_head_dim: Channels per attention head.
        layers_per_block: Residual blocks per level on the way down (one more on the way up).
        max_instances: Instance slots.
        num_mask_points: Points that stand for a mask.
        num_fourier_freqs: Frequencies of the location features.
        grounding_mid_dim: Hidden size of the UniFusion tokenizers.
        segment_size: Side of the masks for the segment branch.
        convnext_depths: Blocks per stage of the segment branch.
        convnext_widths: Channels per stage of the segment branch.
        masked_attention: How location reaches the gated attention.
        local_mask_radius: Relative radii of the local masks of points and scribbles, or None.
        use_scaleu: Whether ScaleU is built in.
        grounding_keep: Formats that the model is built for.
        autocast: Dtype of the matrix products (weights stay float32), or None. On CPUs with bfloat16
            units it is 1.4 times as fast here; without them it is far slower.
        rules: What samples show.
        seed: Root of all randomness.
    """

    steps: int = 4000
    warmup: int = 100
    cooldown: int = 1000
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    gate: float = 1.0
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "v_prediction"
    channels: tuple[int, ...] = (64, 128)
    cross_attention_down: tuple[bool, ...] = (True, True)
    cross_attention_up: tuple[bool, ...] = (False, True)
    attention_head_dim: int = 64
    layers_per_block: int = 1
    max_instances: int = 16
    num_mask_points: int = 64
    num_fourier_freqs: int = 8
    grounding_mid_dim: int = 192
    segment_size: int = 128
    convnext_depths: tuple[int, ...] = (1, 1, 1, 1)
    convnext_widths: tuple[int, ...] = (16, 24, 32, 48)
    masked_attention: str = "correct"
    local_mask_radius: tuple[float, float] | None = (0.15, 0.08)
    use_scaleu: bool = True
    grounding_keep: tuple[str, ...] = ("box", "point", "scribble", "mask")
    autocast: str | None = "bfloat16"
    rules: FormatRules = field(default_factory=FormatRules)
    seed: int = 0


def shapes_unet(recipe: UNetRecipe, latent_channels: int, latent_size: int, context_dim: int) -> InstanceUNet:
    """Builds the UNet of a recipe with open gates.

    Args:
        recipe: The recipe.
        latent_channels: Channels of the autoencoder's latents.
        latent_size: Side of the latents.
        context_dim: Width of the text encoder.

    Returns:
        The network, in training mode.
    """
    radius = recipe.local_mask_radius
    unet = InstanceUNet(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=recipe.channels,
        layers_per_block=recipe.layers_per_block,
        down_block_types=tuple(
            "CrossAttnDownBlock2D" if crossed else "DownBlock2D" for crossed in recipe.cross_attention_down
        ),
        up_block_types=tuple(
            "CrossAttnUpBlock2D" if crossed else "UpBlock2D"
            for crossed in reversed(recipe.cross_attention_up)
        ),
        attention_head_dim=tuple(channels // recipe.attention_head_dim for channels in recipe.channels),
        cross_attention_dim=context_dim,
        norm_num_groups=16,
        max_instances=recipe.max_instances,
        num_mask_points=recipe.num_mask_points,
        num_fourier_freqs=recipe.num_fourier_freqs,
        grounding_in_dim=context_dim,
        grounding_out_dim=context_dim,
        grounding_mid_dim=recipe.grounding_mid_dim,
        segment_size=recipe.segment_size,
        convnext_depths=recipe.convnext_depths,
        convnext_widths=recipe.convnext_widths,
        use_scaleu=recipe.use_scaleu,
        masked_attention=recipe.masked_attention,
        local_mask_radius=None if radius is None else {"point": radius[0], "scribble": radius[1]},
        grounding_keep=recipe.grounding_keep,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("alpha_attn", "alpha_dense")):
                parameter.fill_(recipe.gate)
    return unet


def learning_rate_factor(step: int, recipe: UNetRecipe) -> float:
    """Multiplier of the peak rate at a zero-based step."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    fall = (recipe.steps - step) / recipe.cooldown if recipe.cooldown else 1.0
    return max(0.0, min(rise, fall))


@torch.no_grad()
def embed_texts(folder: Path, text_encoder: Path, tokenizer: Path, output: Path) -> None:
    """Embeds all distinct phrases and captions of a data folder into two files, once.

    Args:
        folder: COCO-format folder.
        text_encoder: Folder of the frozen CLIPTextModel.
        tokenizer: Folder of the CLIPTokenizer.
        output: Folder that receives ``phrases.npy`` (pooled states, float16 [P, D]) and ``captions.npy``
            (token states, float16 [C, 77, D]); existing files are kept.
    """
    if (output / "captions.npy").exists():
        return
    encoder = CLIPTextModel.from_pretrained(text_encoder).eval()
    words = CLIPTokenizer.from_pretrained(tokenizer)
    with np.load(build_location_cache(folder), allow_pickle=False) as cache:
        texts = {"phrases": list(map(str, cache["phrases"])), "captions": list(map(str, cache["captions"]))}
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in texts.items():
        tokens = words(rows, padding="max_length", truncation=True, return_tensors="pt").input_ids
        width = int(encoder.config.hidden_size)
        shape = (len(rows), tokens.shape[1], width) if name == "captions" else (len(rows), width)
        partial = output / f"{name}.part.npy"
        states = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, len(rows), 256):
            encoded = encoder(tokens[start : start + 256])
            chosen = encoded.last_hidden_state if name == "captions" else encoded.pooler_output
            states[start : start + 256] = chosen.half().numpy()
        states.flush()
        partial.replace(output / f"{name}.npy")


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


class _Trainer:
    """State of one run on this process."""

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
        # On its device before anything copies its weights: the average must live where they do.
        unet.to(self.device, memory_format=torch.channels_last)
        self.ema = Ema(unet, recipe.ema)
        matrices, others = split_parameters(unet)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.muon = Muon(matrices, recipe.lr, weight_decay=recipe.weight_decay, rank=rank, world_size=world)
        self.adam = torch.optim.AdamW(others, recipe.lr, betas=(0.9, 0.99), weight_decay=0.0)
        schedule = DDPMScheduler(beta_schedule=recipe.beta_schedule, prediction_type=recipe.prediction_type)
        self.alphas = schedule.alphas_cumprod.to(self.device)
        denoiser = GroundedDenoiser(unet)
        self.wrapped = self.accelerator.prepare_model(torch.compile(denoiser) if compiled else denoiser)

    def loss(self, step: int) -> Tensor:
        """Mean squared error of this process's share of a step's batch; depends on step and weights only."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share = self.recipe.batch_size // world
        rng = np.random.default_rng(step_seed(self.recipe.seed, step, 10 + rank))
        generator = step_generator(self.recipe.seed, step, 1000 + rank)
        batch = self.dataset.batch(rng.integers(len(self.dataset), size=share), rng)
        latents = batch.latents.to(self.device)
        # Stratified over the whole step: lower variance than independent draws.
        offsets = torch.rand(share, generator=generator)
        strata = (torch.arange(share) * world + rank + offsets) / (share * world)
        timesteps = (strata * len(self.alphas)).long().clamp(max=len(self.alphas) - 1).to(self.device)
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
        """
        rate = self.recipe.lr * learning_rate_factor(step, self.recipe)
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss(step)
        self.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.recipe.clip)
        self.muon.step()
        self.adam.step()
        self.ema.update(self.unet, step)
        return loss.item(), float(norm)

    def save(self, folder: Path, step: int, seconds: float) -> None:
        """Saves a checkpoint (main process only)."""
        if self.accelerator.is_main_process:
            state = {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}
            save_checkpoint(
                folder,
                Checkpoint(
                    step,
                    seconds,
                    _identity(self.recipe),
                    dict(self.unet.state_dict()),
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
        identity = _identity(self.recipe)
        changed = sorted(key for key in identity if identity[key] != checkpoint.recipe.get(key))
        if changed:
            raise ValueError(f"{folder}: holds a run with another {', '.join(changed)}; use another folder")
        self.unet.load_state_dict(checkpoint.model)
        self.ema.load(checkpoint.ema)
        self.muon.load_state_dict(checkpoint.optimizer["muon"])
        self.adam.load_state_dict(checkpoint.optimizer["adam"])
        return checkpoint.step, checkpoint.seconds


def _moved(grounding: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: _moved(value, device)
        if isinstance(value, Mapping)
        else value.to(device)
        if value is not None
        else None
        for name, value in grounding.items()
    }


def _identity(recipe: UNetRecipe) -> dict[str, Any]:
    """The recipe without the length of the run, which may change on resuming."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return {key: value for key, value in content.items() if key not in ("steps", "cooldown")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reference_model.training unet", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="COCO-format folder")
    parser.add_argument("--latents", type=Path, required=True, help="latents.npy of the same folder")
    parser.add_argument("--text-encoder", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=JSON", help="override a recipe value"
    )
    parser.add_argument("--max-minutes", type=float, help="stop (resumable) after this long")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0)
    return parser


def recipe_from_overrides(overrides: list[str]) -> UNetRecipe:
    """Applies ``NAME=JSON`` overrides to the default recipe.

    Raises:
        ValueError: If a name is unknown or a value is not JSON.
    """
    values: dict[str, Any] = {}
    for item in overrides:
        name, _, text = item.partition("=")
        if name not in UNetRecipe.__dataclass_fields__:
            raise ValueError(f"--set {item}: no recipe value {name!r}; see UNetRecipe")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--set {item}: the value of {name!r} is not JSON ({error})") from error
        if name == "rules":
            unknown = sorted(set(value) - set(FormatRules.__dataclass_fields__))
            if unknown:
                raise ValueError(f"--set {item}: no rule {', '.join(map(repr, unknown))}; see FormatRules")
        values[name] = (
            FormatRules(**value) if name == "rules" else tuple(value) if isinstance(value, list) else value
        )
    return UNetRecipe(**values)


def main(argv: list[str]) -> int:
    """Command line of the recipe."""
    arguments = _parser().parse_args(argv)
    recipe = recipe_from_overrides(arguments.set)
    latents = np.load(arguments.latents, mmap_mode="r", allow_pickle=False)
    accelerator = Accelerator()
    texts = arguments.output / "texts"
    if accelerator.is_main_process:
        embed_texts(arguments.data, arguments.text_encoder, arguments.tokenizer, texts)
    accelerator.wait_for_everyone()
    phrases = torch.from_numpy(np.load(texts / "phrases.npy", allow_pickle=False).astype(np.float32))
    captions = np.load(texts / "captions.npy", mmap_mode="r", allow_pickle=False)
    torch.set_flush_denormal(True)  # tiny values in float32 moments slow CPUs down
    torch.manual_seed(recipe.seed)
    unet = shapes_unet(recipe, latents.shape[1], latents.shape[-1], phrases.shape[-1])
    radius = recipe.local_mask_radius
    dataset = GroundedDataset(
        arguments.data,
        latents,
        phrases,
        captions,
        max_instances=recipe.max_instances,
        num_mask_points=recipe.num_mask_points,
        segment_size=recipe.segment_size,
        local_mask_radius=None if radius is None else {"point": radius[0], "scribble": radius[1]},
        rules=recipe.rules,
    )
    trainer = _Trainer(accelerator, recipe, dataset, unet, arguments.compile)
    _train(trainer, arguments)
    return 0


def _train(trainer: _Trainer, arguments: argparse.Namespace) -> None:
    recipe, folder = trainer.recipe, arguments.output
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
        if main_process and done % arguments.log_every == 0:
            rate = len(losses) * recipe.batch_size / (time.monotonic() - started)
            recent = losses[-arguments.log_every :]
            log.write(
                step=done,
                seconds=round(seconds(), 1),
                loss=sum(recent) / len(recent),
                grad_norm=norm,
                rate=rate,
            )
        late = arguments.max_minutes is not None and time.monotonic() - started > arguments.max_minutes * 60
        due = time.monotonic() - saved > arguments.checkpoint_minutes * 60
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
