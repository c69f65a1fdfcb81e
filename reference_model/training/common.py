"""What every recipe shares: schedules, averaged weights, checkpoints and logs.

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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = [
    "Checkpoint",
    "Ema",
    "JsonlLog",
    "load_checkpoint",
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
        decay: Largest decay.
        names: Only the parameters and buffers of these names; None follows all.
        ramp: Whether early steps use ``(1 + n) / (10 + n)``, so that the start is forgotten.
    """

    def __init__(
        self, module: nn.Module, decay: float, names: Iterable[str] | None = None, *, ramp: bool = True
    ) -> None:
        self.decay = decay
        self.ramp = ramp
        weights = module.state_dict()
        self.shadow = {name: weights[name].detach().clone() for name in (weights if names is None else names)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves the average towards the module's weights after zero-based ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.ramp else self.decay
        averaged, current = [], []
        weights = module.state_dict()
        for name in self.shadow:
            value = weights[name]
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
        """Writes the averaged weights into a module of the same shape; weights that are not followed stay."""
        module.load_state_dict({**module.state_dict(), **self.shadow})


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
