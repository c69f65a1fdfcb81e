"""The training loop of the small recipes: resumable, with averaged weights and a log."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reference_model.training.common import (
    Checkpoint,
    Ema,
    JsonlLog,
    load_checkpoint,
    save_checkpoint,
    warmup_cosine,
)

__all__ = ["FitReport", "LoopSettings", "fit", "optimizer_for"]

logger = logging.getLogger(__name__)

Loss = Callable[[int], tuple[Tensor, dict[str, Tensor | float]]]


@dataclass(frozen=True)
class LoopSettings:
    """Numbers of the training loop.

    Attributes:
        steps: Optimizer steps of the whole run; the schedule ends there.
        lr: Largest learning rate.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW decay of weights; biases and norms are not decayed.
        betas: AdamW betas.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights; 0 switches averaging off.
        seed: Root of all randomness.
        checkpoint_seconds: Seconds between checkpoints.
        log_every: Steps between log lines.
    """

    steps: int
    lr: float
    warmup: int = 50
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0
    checkpoint_seconds: float = 60.0
    log_every: int = 20


@dataclass
class FitReport:
    """What `fit` did.

    Attributes:
        step: Steps done in total.
        minutes: Minutes spent in total, earlier sessions of the same run included.
        complete: Whether the last step was reached.
        last: Figures of the last log line.
    """

    step: int
    minutes: float
    complete: bool
    last: dict[str, float] = field(default_factory=dict)


def optimizer_for(module: nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW without weight decay on biases, norms and other one-dimensional parameters."""
    trained = [value for value in module.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)


class _Run:
    """The state of one run in one process: everything that a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        settings: LoopSettings,
        folder: Path,
        recipe: Any,
        optimizers: Sequence[torch.optim.Optimizer] | None,
    ) -> None:
        self.model, self.settings, self.folder = model, settings, folder
        self.recipe: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
        self.optimizers = [optimizer_for(model, settings)] if optimizers is None else list(optimizers)
        self.rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.ema = Ema(model, settings.ema) if settings.ema else None
        self.step = 0
        self._seconds_before = 0.0
        self._restore()
        self.started = self._saved = time.monotonic()

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self.folder)
        if checkpoint is None:
            return
        changed = sorted(
            key
            for key in {*self.recipe, *checkpoint.recipe}
            if self.recipe.get(key) != checkpoint.recipe.get(key)
        )
        if changed:
            raise ValueError(
                f"{self.folder}: holds a run with other settings ({', '.join(changed)}); "
                "use the same ones or another folder"
            )
        self.model.load_state_dict(checkpoint.model)
        if self.ema is not None:
            self.ema.load(checkpoint.ema)
        for position, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(checkpoint.optimizer[str(position)])
        self.step, self._seconds_before = checkpoint.step, checkpoint.seconds
        logger.info("resumed %s at step %d", self.folder, self.step)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all sessions."""
        return self._seconds_before + time.monotonic() - self.started

    def advance(self, loss: Loss) -> dict[str, Tensor | float]:
        """One optimizer step; returns what to log."""
        share = warmup_cosine(self.step, self.settings.steps, self.settings.warmup)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * share
        value, figures = loss(self.step)
        self.model.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        return {"lr_share": share, "grad_norm": norm, "loss": value, **figures}

    def save(self) -> None:
        """Writes a checkpoint."""
        states = {str(position): optimizer.state_dict() for position, optimizer in enumerate(self.optimizers)}
        averaged = self.ema.shadow if self.ema is not None else {}
        model = dict(self.model.state_dict())
        save_checkpoint(
            self.folder, Checkpoint(self.step, self.seconds, self.recipe, model, averaged, states)
        )
        self._saved = time.monotonic()

    def save_if_due(self) -> None:
        """Writes a checkpoint when the last one is old."""
        if time.monotonic() - self._saved > self.settings.checkpoint_seconds:
            self.save()

    def validated(self, validate: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """Runs a validation on the averaged weights and puts the trained ones back."""
        kept = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.ema is not None:
            self.ema.copy_to(self.model)
        figures = validate(self.step)
        self.model.load_state_dict(kept)
        return figures


def fit(
    model: nn.Module,
    loss: Loss,
    settings: LoopSettings,
    folder: Path,
    *,
    recipe: Any,
    optimizers: Sequence[torch.optim.Optimizer] | None = None,
    max_minutes: float | None = None,
    stop_at: int | None = None,
    validate: Callable[[int], dict[str, float]] | None = None,
    validate_every: int = 0,
) -> FitReport:
    """Trains a model in place, resuming from the folder's checkpoint where there is one.

    When the last step is reached the model holds the averaged weights. A run that is killed goes on from its
    newest checkpoint.

    Args:
        model: The module to train.
        loss: Maps a zero-based step to a scalar loss and further figures to log; must depend on nothing but
            the step and the model's weights.
        settings: Numbers of the loop.
        folder: Receives ``log.jsonl`` and ``checkpoints/``.
        recipe: Dataclass that identifies the run; a checkpoint of another recipe is refused.
        optimizers: Optimizers whose groups hold their largest rates; None means AdamW for everything.
        max_minutes: Stop (resumable) after this much time in this session.
        stop_at: Stop (resumable) when this many steps are done.
        validate: Called with the number of steps done while the model holds the averaged weights.
        validate_every: Steps between validations; 0 means never.

    Raises:
        ValueError: If the folder holds a run with other settings, or the loss stops being finite.
    """
    log = JsonlLog(folder / "log.jsonl")
    run = _Run(model, settings, folder, recipe, optimizers)
    end = settings.steps if stop_at is None else min(stop_at, settings.steps)
    deadline = math.inf if max_minutes is None else run.started + 60 * max_minutes
    last: dict[str, float] = {}
    while run.step < end and time.monotonic() < deadline:
        figures = run.advance(loss)
        if run.step % settings.log_every == 0 or run.step == settings.steps:
            last = {key: float(torch.as_tensor(value).detach()) for key, value in figures.items()}
            if not math.isfinite(last["loss"]):
                raise ValueError(
                    f"{folder}: the loss is not finite at step {run.step}; lower the learning rate"
                )
            log.write(step=run.step, seconds=round(run.seconds, 1), **last)
        if (
            validate is not None
            and validate_every
            and run.step % validate_every == 0
            and run.step < settings.steps
        ):
            log.write(step=run.step, seconds=round(run.seconds, 1), **run.validated(validate))
        run.save_if_due()
    run.save()
    complete = run.step >= settings.steps
    if complete and run.ema is not None:
        run.ema.copy_to(model)
    return FitReport(run.step, run.seconds / 60, complete, last)
