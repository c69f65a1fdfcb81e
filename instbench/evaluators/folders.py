"""Evaluator folders: where they are, what their cards say, how their weights are read.

An evaluator folder holds ``evaluator.json`` (the card), its weights as safetensors and what else the
network needs. Nothing in it is executed or unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.runs.atomic import sha256_file

if TYPE_CHECKING:
    import torch
    from torch import nn

    from reference_model.checkpoints.tensors import LazyTensor

__all__ = [
    "CARD_NAME",
    "DetectorCard",
    "EvaluatorCard",
    "FeaturesCard",
    "ImageTextCard",
    "card_kind",
    "check_room",
    "count_numbers",
    "default_batch_size",
    "file_hashes",
    "fit_weights",
    "load_weights",
    "one_line",
    "read_card",
    "read_json",
    "write_card",
]

CARD_NAME = "evaluator.json"

_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin"})


class EvaluatorCard(BaseModel):
    """What every ``evaluator.json`` says.

    Attributes:
        schema_version: Version of this form.
        kind: Which adapter reads the folder.
        figures: Measured quality: data set name -> figure name -> value.
        training: How the weights were made: data, command, steps, minutes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: str
    figures: dict[str, dict[str, float]] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)


class DetectorCard(EvaluatorCard):
    """Card of an ultralytics segmentation or detection network.

    Attributes:
        categories: Category names in the order of the network's classes.
        image_size: Side of the square that images are letterboxed into.
        border: Grey pixels around that square, as ``yolo val`` adds (16); part of the network's input.
        confidence: Smallest score of a detection.
        iou: Overlap above which non-maximum suppression drops the lower score of a category.
        max_detections: Detections per image.
        multi_label: Whether one box may be reported under several categories, as ``yolo val`` does.
    """

    kind: Literal["ultralytics-segment", "ultralytics-detect"] = "ultralytics-segment"
    categories: tuple[str, ...] = Field(min_length=1)
    image_size: int = Field(gt=0, multiple_of=32)
    border: int = Field(default=0, ge=0, le=256, multiple_of=16)
    confidence: float = Field(default=0.001, ge=0, lt=1)
    iou: float = Field(default=0.7, gt=0, le=1)
    max_detections: int = Field(default=300, gt=0)
    multi_label: bool = True


class ImageTextCard(EvaluatorCard):
    """Card of an open_clip model; its own settings are in ``open_clip_config.json``."""

    kind: Literal["open-clip"] = "open-clip"


class FeaturesCard(EvaluatorCard):
    """Card of a transformers ResNet feature extractor.

    Attributes:
        image_size: Side that images are resized to (bicubic, antialiased), aspect not kept.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
    """

    kind: Literal["resnet-features"] = "resnet-features"
    image_size: int = Field(gt=0)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


CardT = TypeVar("CardT", bound=EvaluatorCard)


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InputError: The file is missing, unreadable or not an object.
    """
    try:
        data = json.loads(read_file(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; an evaluator folder needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({one_line(error)}); write it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, expected an object")
    return data


def card_kind(folder: Path) -> str:
    """The ``kind`` that the card of a folder names."""
    return str(read_json(_checked_folder(folder) / CARD_NAME).get("kind", ""))


def read_card(folder: Path, card_type: type[CardT]) -> CardT:
    """Reads and checks ``evaluator.json``.

    Raises:
        InputError: The folder is a pickle file or missing, or a field of the card is wrong.
    """
    path = _checked_folder(folder) / CARD_NAME
    try:
        return card_type.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: field {field}: {first['msg']}") from error


def write_card(folder: Path, card: EvaluatorCard) -> None:
    """Writes ``evaluator.json`` atomically."""
    partial = folder / f"{CARD_NAME}.partial"
    partial.write_text(json.dumps(card.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / CARD_NAME)


def _checked_folder(folder: Path) -> Path:
    pickles = folder.is_file() and folder.suffix.lower() in _PICKLE_SUFFIXES
    if not pickles and folder.is_dir() and not (folder / CARD_NAME).exists():
        pickles = any(path.suffix.lower() in _PICKLE_SUFFIXES for path in folder.iterdir())
    if pickles:
        raise InputError(
            f"{folder}: a Python pickle, which can run any code when it is read; convert the weights to "
            f"safetensors in a folder with {CARD_NAME} (see instbench/evaluators/README.md)"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: no such evaluator folder; give the folder that holds {CARD_NAME}")
    return folder


def check_room(build: Callable[[], nn.Module], config: Mapping[str, Any], path: Path, weights: Path) -> None:
    """Refuses a configuration and weights that do not belong together, before memory is taken for either.

    Args:
        build: Builds the network.
        config: Its configuration.
        path: The file of the configuration, for messages.
        weights: The safetensors; if they are not there, nothing is checked.

    Raises:
        InputError: The configuration asks for more numbers or layers than the weights hold, names, shapes or kinds of
            numbers differ, or the weights are damaged.
    """
    from reference_model.checkpoints.headers import facts_of
    from reference_model.checkpoints.inspection import check_claims
    from reference_model.checkpoints.tensors import CheckpointError

    if not weights.is_file():
        return
    try:
        facts = facts_of(weights)
        _check_fit(check_claims(build, config, path, facts).state_dict(), facts, weights)
    except CheckpointError as error:
        raise InputError(str(error)) from None


def count_numbers(weights: Path) -> int | None:
    """How many numbers a safetensors file holds, from its header; None if there is no such file.

    Raises:
        InputError: The header is damaged.
    """
    import math

    from reference_model.checkpoints.headers import facts_of
    from reference_model.checkpoints.tensors import CheckpointError

    try:
        return (
            sum(math.prod(fact.shape) for fact in facts_of(weights).values()) if weights.is_file() else None
        )
    except CheckpointError as error:
        raise InputError(str(error)) from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads safetensors into a network, whatever the floating type they were saved in.

    Args:
        model: The network.
        path: The file.

    Raises:
        InputError: The file is missing or broken, or does not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the weights of the evaluator are missing") from error
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({one_line(error)}); fetch it again"
        ) from error
    fit_weights(model, state, path)


def fit_weights(
    model: nn.Module, state: Mapping[str, torch.Tensor] | Mapping[str, LazyTensor], path: Path
) -> None:
    """Loads tensors that must be exactly those of a network.

    Args:
        model: The network.
        state: Tensors by name; those that are still in their file are read only if all of them fit.
        path: Where they come from, for messages.

    Raises:
        InputError: Names, shapes or kinds of numbers differ, or weights are NaN or infinite; the first few are named.
    """
    from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, check_finite

    _check_fit(model.state_dict(), state, path)
    try:
        read = {name: one.read() if isinstance(one, LazyTensor) else one for name, one in state.items()}
        check_finite(read, str(path))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    model.load_state_dict(read)


def _check_fit(wanted: Mapping[str, Any], held: Mapping[str, Any], path: Path) -> None:
    from reference_model.checkpoints.headers import misfits

    odd = misfits(wanted, held)
    if odd:
        raise InputError(f"{path}: does not fit the network next to it: {odd}; use a matching pair")


def file_hashes(folder: Path, names: Iterable[str]) -> Mapping[str, str]:
    """SHA-256 of files of a folder, by name."""
    return {name: sha256_file(folder / name) for name in sorted(names)}


def default_batch_size(device: torch.device, on_accelerator: int) -> int:
    """Images per forward pass: one on the CPU, where larger batches save little and change the last bits."""
    return 1 if device.type == "cpu" else on_accelerator
