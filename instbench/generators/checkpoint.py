"""Checkpoint folders of the reference model: checks and hashes, without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.runs.atomic import sha256_file

__all__ = [
    "GLIGEN_PIPELINE",
    "GLIGEN_WEIGHTS",
    "INSTANCE_PIPELINE",
    "READABLE",
    "SHIPPED_WEIGHTS",
    "STABLE_DIFFUSION_PIPELINE",
    "check_schedule",
    "grounding_net",
    "hash_files",
    "pipeline_folder",
    "read_config",
    "read_index",
    "recommended_sampling",
]

SHIPPED_WEIGHTS = "weights/shapes"
GLIGEN_WEIGHTS = "weights/shapes-gligen"
INSTANCE_PIPELINE = "InstanceDiffusionPipeline"
GLIGEN_PIPELINE = "StableDiffusionGLIGENPipeline"
STABLE_DIFFUSION_PIPELINE = "StableDiffusionPipeline"
READABLE = (INSTANCE_PIPELINE, GLIGEN_PIPELINE, STABLE_DIFFUSION_PIPELINE)
_MODELS = {
    INSTANCE_PIPELINE: "reference",
    GLIGEN_PIPELINE: "gligen",
    STABLE_DIFFUSION_PIPELINE: "text-only",
}
_FOREIGN_SAMPLING: Mapping[str, Mapping[str, float]] = {
    GLIGEN_PIPELINE: {"alpha": 0.3, "mis": 0.0},
    STABLE_DIFFUSION_PIPELINE: {"alpha": 0.0, "mis": 0.0},
}
_MOST_STEPS = 100_000
_HASHED = {".safetensors", ".json", ".txt", ".model"}


def pipeline_folder(
    checkpoint: Path | None,
    *,
    shipped: str = SHIPPED_WEIGHTS,
    kinds: Collection[str] = (INSTANCE_PIPELINE,),
) -> Path:
    """The folder of a checkpoint, checked.

    Args:
        checkpoint: A pipeline folder, or None for shipped weights.
        shipped: Which of them, as a path in the package `reference_model`.
        kinds: Pipeline classes that will do.

    Returns:
        The folder.

    Raises:
        InputError: If it does not exist or holds something else.
    """
    if checkpoint is None:
        folder = Path(str(files("reference_model"))) / shipped
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"{folder}: the shipped weights are missing; reinstall instbench or give --checkpoint"
            )
        return folder
    if checkpoint.is_file():
        raise InputError(
            f"{checkpoint}: is a single file; give a pipeline folder, such as `instbench convert {checkpoint} FOLDER` "
            "writes"
        )
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: no such folder; give the folder of a checkpoint")
    kind = read_index(checkpoint).get("_class_name")
    if kind not in kinds:
        name = str(kind)[:60] if kind else "pipeline without a name"
        hint = f"; use --model {_MODELS[kind]}" if isinstance(kind, str) and kind in _MODELS else ""
        raise InputError(f"{checkpoint}: holds a {name}, not {_either(kinds)}{hint}")
    return checkpoint


def _either(kinds: Collection[str]) -> str:
    return " or ".join(f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}" for kind in kinds)


def grounding_net(folder: Path, wanted: str) -> None:
    """Checks where the grounding tokens of a checkpoint come from.

    Args:
        folder: Pipeline folder of the reference model's classes, or of GLIGEN in diffusers' layout.
        wanted: ``"unifusion"`` or ``"gligen"``.

    Raises:
        InputError: If they come from elsewhere; the message names the model that takes the folder.
    """
    config = read_config(folder, "unet/config.json")
    if read_index(folder).get("_class_name") == GLIGEN_PIPELINE:
        attention = config.get("attention_type", "default")
        if attention != "gated":
            raise InputError(
                f"{folder}: its UNet has attention_type {str(attention)[:40]!r}; "
                "give GLIGEN for boxes and text ('gated')"
            )
        return
    found = config.get("grounding_net", "unifusion")
    if found != wanted:
        models = {"unifusion": "reference", "gligen": "gligen"}
        raise InputError(
            f"{folder}: its UNet has grounding_net {str(found)[:40]!r}, not {wanted!r}; "
            f"use --model {models.get(str(found), 'text-only')}"
        )


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a pipeline folder.

    Raises:
        InputError: If it is missing or unreadable.
    """
    return read_config(folder, "model_index.json")


def recommended_sampling(index: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that a checkpoint recommends.

    Args:
        index: ``model_index.json``.

    Returns:
        Fields of `SamplingParameters`: the folder's own ``sampling_defaults``. Folders of diffusers have none; GLIGEN
        is then grounded in the first 30 % of the steps, as in its authors' code and in diffusers, and Stable
        Diffusion in none, both without the Multi-Instance Sampler.

    Raises:
        InputError: If the field is no object.
    """
    own = index.get("sampling_defaults")
    if own is not None and not isinstance(own, dict):
        raise InputError(
            "model_index.json: field sampling_defaults must be an object; copy the checkpoint again"
        )
    return own or dict(_FOREIGN_SAMPLING.get(str(index.get("_class_name")), {}))


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a pipeline folder.

    Raises:
        InputError: If it is missing or unreadable.
    """
    path = folder / name
    try:
        content = json.loads(read_file(path))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no {name}; give the folder of a checkpoint") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the checkpoint again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object; copy the checkpoint again")
    return content


def check_schedule(folder: Path) -> None:
    """Checks the noise schedule of a pipeline folder, whose tables are as long as its configuration says.

    Raises:
        InputError: If ``scheduler_config.json`` is missing or unreadable, or asks for more steps than any schedule has.
    """
    name = "scheduler/scheduler_config.json"
    config = read_config(folder, name)
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if type(steps) is not int or not 1 <= steps <= _MOST_STEPS:
        raise InputError(
            f"{folder / name}: field num_train_timesteps must be a whole number from 1 to {_MOST_STEPS}; "
            "copy the checkpoint again"
        )
    if isinstance(betas, list) and len(betas) > _MOST_STEPS:
        raise InputError(
            f"{folder / name}: field trained_betas has {len(betas)} numbers, more than {_MOST_STEPS}"
        )


def hash_files(folder: Path, names: Iterable[Path] | None = None) -> dict[str, str]:
    """SHA-256 of files by their path relative to a folder.

    Args:
        folder: The folder.
        names: Files to hash; None takes all weight, config and vocabulary files of a checkpoint folder.

    Returns:
        Hex digests, sorted by path.
    """
    if names is None:
        names = (path for path in folder.rglob("*") if path.is_file() and path.suffix in _HASHED)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(names)}
