"""A small resumable training loop, shared by the recipes."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from instbench.errors import InputError

__all__ = ["LoopSettings", "TrainedModel", "batch_indices", "run_loop"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of one training run; a checkpoint made with other settings is refused.

    Attributes:
        steps: Number of optimizer steps.
        batch_size: Items per step.
        learning_rate: Peak rate of AdamW.
        weight_decay: Of weights with two or more dimensions.
        warmup_steps: Linear warm-up.
        final_share: Share of the peak rate left at the end of the cosine decay.
        ema: Decay of the averaged weights, which are what is exported.
        clip: Largest gradient norm.
        seed: Seed of everything random.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 5e-4
    warmup_steps: int = 50
    final_share: float = 0.01
    ema: float = 0.995
    clip: float = 10.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        done = min(1.0, step / max(1, self.steps - 1))
        decay = self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * warm * decay


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a run ends with: averaged weights in eval mode, the training time, the last losses."""

    model: nn.Module
    seconds: float
    losses: Mapping[str, float]


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Indices of the batch of a step: shuffled epochs, the same for the same seed, int64 [batch_size].

    A batch may span two epochs, so that every step has the full size.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = positions // count, positions % count
    orders = {int(e): np.random.default_rng((seed, int(e), 1)).permutation(count) for e in np.unique(epochs)}
    return np.array([orders[int(e)][p] for e, p in zip(epochs, places, strict=True)], np.int64)


def run_loop(
    model: nn.Module,
    compute_loss: Callable[[nn.Module, int, np.random.Generator], Mapping[str, torch.Tensor]],
    settings: LoopSettings,
    out: Path,
    *,
    checkpoint_every: int = 100,
    log_every: int = 20,
) -> TrainedModel:
    """Trains a model with AdamW, cosine decay and averaged weights; continues an interrupted run.

    Args:
        model: The network; trained in place.
        compute_loss: Called with the model, the step and the step's own generator; returns named
            scalar losses, whose sum under ``"loss"`` is minimised.
        settings: Settings of the run.
        out: Folder of ``checkpoint.pt`` and ``log.jsonl``.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between log lines.

    Returns:
        The averaged model, in eval mode, with times and losses.

    Raises:
        InputError: The folder holds a checkpoint of a run with other settings.
        FloatingPointError: The loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
    )
    average = copy.deepcopy(model).eval().requires_grad_(False)
    start, seconds, losses = _resume(out / "checkpoint.pt", model, average, optimizer, settings)
    began = time.perf_counter()
    for step in range(start, settings.steps):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        parts = compute_loss(model, step, np.random.default_rng((settings.seed, step, 2)))
        losses = {name: float(value.detach()) for name, value in parts.items()}
        if not math.isfinite(losses["loss"]):
            raise FloatingPointError(f"step {step}: the loss is {losses['loss']}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        _update_average(average, model, min(settings.ema, (step + 1) / (step + 10)))
        elapsed = seconds + time.perf_counter() - began
        last = step + 1 == settings.steps
        if (step + 1) % log_every == 0 or last:
            _log(out / "log.jsonl", {"step": step + 1, "seconds": round(elapsed, 1), **losses})
        if (step + 1) % checkpoint_every == 0 or last:
            _save(out / "checkpoint.pt", step + 1, elapsed, losses, model, average, optimizer, settings)
    elapsed = seconds + (time.perf_counter() - began if start < settings.steps else 0.0)
    return TrainedModel(model=average, seconds=elapsed, losses=losses)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    source = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(source[name], 1 - decay)
        else:
            value.copy_(source[name])


def _log(path: Path, row: Mapping[str, Any]) -> None:
    logger.info(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _save(
    path: Path,
    step: int,
    seconds: float,
    losses: Mapping[str, float],
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: LoopSettings,
) -> None:
    state = {
        "step": step,
        "seconds": seconds,
        "losses": dict(losses),
        "settings": asdict(settings),
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, settings: LoopSettings
) -> tuple[int, float, dict[str, float]]:
    if not path.exists():
        return 0, 0.0, {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != asdict(settings):
        raise InputError(f"{path}: made with other settings ({state['settings']}); choose another -o folder")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("continuing after step %d", state["step"])
    return int(state["step"]), float(state["seconds"]), dict(state["losses"])
