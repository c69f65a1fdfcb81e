"""Checkpoint folders of the reference model: checks and hashes, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.runs.atomic import sha256_file

__all__ = [
    "GLIGEN_WEIGHTS",
    "SHIPPED_WEIGHTS",
    "grounding_net",
    "hash_files",
    "pipeline_folder",
    "read_index",
]

SHIPPED_WEIGHTS = "weights/shapes"
GLIGEN_WEIGHTS = "weights/shapes-gligen"
_PIPELINE = "InstanceDiffusionPipeline"
_HASHED = {".safetensors", ".json", ".txt", ".model"}


def pipeline_folder(checkpoint: Path | None, *, shipped: str = SHIPPED_WEIGHTS) -> Path:
    """The folder of a checkpoint, checked.

    Args:
        checkpoint: A pipeline folder, or None for shipped weights.
        shipped: Which of them, as a path in the package `reference_model`.

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
    if kind != _PIPELINE:
        raise InputError(f"{checkpoint}: holds a {kind or 'pipeline without a name'}, not an {_PIPELINE}")
    return checkpoint


def grounding_net(folder: Path, wanted: str) -> None:
    """Checks where the grounding tokens of a checkpoint come from.

    Args:
        folder: Pipeline folder of the reference model's classes.
        wanted: ``"unifusion"`` or ``"gligen"``.

    Raises:
        InputError: If they come from elsewhere; the message names the model that takes the folder.
    """
    found = _read_json(folder, "unet/config.json").get("grounding_net", "unifusion")
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
    return _read_json(folder, "model_index.json")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no {name}; give the folder of a checkpoint") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the checkpoint again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object; copy the checkpoint again")
    return content


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
