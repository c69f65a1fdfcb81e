"""What every recipe shares: schedules, averaged weights, checkpoints, logs and the training loop.

All randomness of a recipe is derived from ``(seed, step)``, so a run that was interrupted and resumed
gives the same weights as one that was not.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = [
    "Checkpoint",
    "Ema",
    "FitReport",
    "JsonlLog",
    "LoopSettings",
    "fit",
    "load_checkpoint",
    "optimizer_for",
    "save_checkpoint",
    "step_generator",
    "step_seed",
    "warmup_cosine",
    "write_json",
    "write_recipe",
]

logger = logging.getLogger(__name__)

_CHECKPOINTS = "checkpoints"


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Learning-rate multiplier: linear warm-up, then half a cosine down to ``floor``.

    Args:
        step: Zero-based step.
        total: Number of steps of the whole run.
        warmup: Steps of linear rise; the multiplier is 1 at step ``warmup - 1``.
        floor: Multiplier at the end.

    Returns:
        A number in ``[0, 1]``.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """A 63-bit seed for one step of one stream of random numbers."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) % 2**64
    return (mixed ^ (mixed >> 32)) >> 1


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    return torch.Generator().manual_seed(step_seed(seed, step, stream))


class Ema:
    """Exponential moving average of a module's parameters and floating-point buffers.

    Args:
        module: The module to follow.
        decay: Largest decay; early steps use ``(1 + n) / (10 + n)``, so that the start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves the average towards the module's weights after zero-based ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.shadow[name])
                current.append(value.detach())
            else:
                self.shadow[name].copy_(value)
        torch._foreach_lerp_(averaged, current, 1.0 - decay)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the average by saved tensors of the same names and shapes."""
        for name, value in self.shadow.items():
            value.copy_(tensors[name])

    def copy_to(self, module: nn.Module) -> None:
        """Writes the averaged weights into a module of the same shape."""
        module.load_state_dict(self.shadow)


class JsonlLog:
    """A log file of one JSON object per line, flushed line by line.

    Args:
        path: The file; its folder is made, lines are appended.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, **fields: Any) -> None:
        """Appends one line and reports it to the Python log as well."""
        rounded = {
            key: round(value, 6) if isinstance(value, float) else value for key, value in fields.items()
        }
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(rounded) + "\n")
        logger.info(" ".join(f"{key}={value}" for key, value in rounded.items()))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


def write_recipe(
    folder: Path, recipe: Any, *, steps: int, minutes: float, figures: Mapping[str, Any]
) -> None:
    """Writes ``recipe.json``: how the weights beside it were made and how good they are.

    Args:
        folder: Folder of the weights.
        recipe: The recipe's dataclass.
        steps: Optimizer steps done.
        minutes: Minutes of wall-clock time spent in the loop.
        figures: Measured figures, JSON values.
    """
    content = {
        "schema_version": 1,
        "part": type(recipe).__name__,
        "command": " ".join(["python -m reference_model.training", *sys.argv[1:]]),
        "recipe": asdict(recipe),
        "steps": steps,
        "minutes": round(minutes, 2),
        "figures": dict(figures),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_json(folder / "recipe.json", content)


@dataclass
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        step: Number of steps done.
        seconds: Wall-clock seconds spent so far.
        recipe: The recipe as a dict of JSON values.
        model: Tensors of the model.
        ema: Tensors of the averaged model; empty without averaging.
        optimizer: State of the optimizers: plain containers of tensors and numbers.
    """

    step: int
    seconds: float
    recipe: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Saves a checkpoint as ``folder/checkpoints/step-XXXXXXXX`` and removes the older ones.

    The new folder appears complete or not at all.
    """
    root = folder / _CHECKPOINTS
    target = root / f"step-{checkpoint.step:08d}"
    partial = target.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in checkpoint.model.items()}, partial / "model.safetensors"
    )
    if checkpoint.ema:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in checkpoint.ema.items()}, partial / "ema.safetensors"
        )
    torch.save(checkpoint.optimizer, partial / "optimizer.pt")
    state = {"step": checkpoint.step, "seconds": checkpoint.seconds, "recipe": checkpoint.recipe}
    write_json(partial / "state.json", state)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    for other in root.iterdir():
        if other.name != target.name:
            shutil.rmtree(other, ignore_errors=True)
    return target


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Loads the newest complete checkpoint of a run, or None if there is none."""
    found = sorted(path for path in (folder / _CHECKPOINTS).glob("step-*") if path.suffix != ".part")
    if not found:
        return None
    newest = found[-1]
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    averaged = newest / "ema.safetensors"
    return Checkpoint(
        step=state["step"],
        seconds=state["seconds"],
        recipe=state["recipe"],
        model=load_file(newest / "model.safetensors"),
        ema=load_file(averaged) if averaged.exists() else {},
        optimizer=torch.load(newest / "optimizer.pt", map_location="cpu", weights_only=True),
    )


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


def _restore(
    folder: Path,
    recipe: dict[str, Any],
    model: nn.Module,
    ema: Ema | None,
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, float]:
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        return 0, 0.0
    changed = sorted(
        key for key in {*recipe, *checkpoint.recipe} if recipe.get(key) != checkpoint.recipe.get(key)
    )
    if changed:
        raise ValueError(
            f"{folder}: holds a run with other settings ({', '.join(changed)}); use the same ones or another folder"
        )
    model.load_state_dict(checkpoint.model)
    if ema is not None:
        ema.load(checkpoint.ema)
    for position, optimizer in enumerate(optimizers):
        optimizer.load_state_dict(checkpoint.optimizer[str(position)])
    logger.info("resumed %s at step %d", folder, checkpoint.step)
    return checkpoint.step, checkpoint.seconds


def fit(
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, Tensor | float]]],
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

    When the last step is reached the model holds the averaged weights. Ctrl-C saves a checkpoint first.

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
    optimizers = [optimizer_for(model, settings)] if optimizers is None else list(optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    ema = Ema(model, settings.ema) if settings.ema else None
    identity = json.loads(json.dumps(asdict(recipe)))
    step, seconds_before = _restore(folder, identity, model, ema, optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    started = saved = time.monotonic()
    last: dict[str, float] = {}

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def save() -> None:
        state = dict(model.state_dict())
        averaged = ema.shadow if ema is not None else {}
        states = {str(position): optimizer.state_dict() for position, optimizer in enumerate(optimizers)}
        save_checkpoint(folder, Checkpoint(step, seconds(), identity, state, averaged, states))

    def stopping() -> bool:
        late = max_minutes is not None and time.monotonic() - started > max_minutes * 60
        return late or (stop_at is not None and step >= stop_at)

    try:
        while step < settings.steps and not stopping():
            share = warmup_cosine(step, settings.steps, settings.warmup)
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * share
            value, figures = loss(step)
            model.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            for optimizer in optimizers:
                optimizer.step()
            if ema is not None:
                ema.update(model, step)
            step += 1
            if step % settings.log_every == 0 or step == settings.steps:
                last = {
                    "loss": value.item(),
                    **{key: float(torch.as_tensor(item).detach()) for key, item in figures.items()},
                }
                if not math.isfinite(last["loss"]):
                    raise ValueError(
                        f"{folder}: the loss is not finite at step {step}; lower the learning rate"
                    )
                log.write(
                    step=step, seconds=round(seconds(), 1), lr_share=share, grad_norm=float(norm), **last
                )
            if (
                validate is not None
                and validate_every
                and step % validate_every == 0
                and step < settings.steps
            ):
                log.write(step=step, seconds=round(seconds(), 1), **_validated(model, ema, validate, step))
            if time.monotonic() - saved > settings.checkpoint_seconds:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    save()
    complete = step >= settings.steps
    if complete and ema is not None:
        ema.copy_to(model)
    return FitReport(step, seconds() / 60, complete, last)


def _validated(
    model: nn.Module, ema: Ema | None, validate: Callable[[int], dict[str, float]], step: int
) -> dict[str, float]:
    """Runs a validation on the averaged weights and puts the trained ones back."""
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if ema is not None:
        ema.copy_to(model)
    figures = validate(step)
    model.load_state_dict(kept)
    return figures
