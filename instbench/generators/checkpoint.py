"""Checkpoint folders of the reference model: checks and hashes, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.runs.atomic import sha256_file

__all__ = ["SHIPPED_WEIGHTS", "hash_files", "pipeline_folder", "read_index"]

SHIPPED_WEIGHTS = "weights/shapes"
_PIPELINE = "InstanceDiffusionPipeline"
_HASHED = {".safetensors", ".json", ".txt", ".model"}


def pipeline_folder(checkpoint: Path | None) -> Path:
    """The folder of a checkpoint, checked.

    Args:
        checkpoint: A pipeline folder, or None for the shipped Shapes weights.

    Returns:
        The folder.

    Raises:
        InputError: If it does not exist or holds something else.
    """
    if checkpoint is None:
        folder = Path(str(files("reference_model"))) / SHIPPED_WEIGHTS
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


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a pipeline folder.

    Raises:
        InputError: If it is missing or unreadable.
    """
    path = folder / "model_index.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no model_index.json; give the folder of a checkpoint") from None
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
