"""Reads the ``.pt`` files of ultralytics without running anything in them.

Such a file is a pickle of a whole network object. The restricted reader turns every object of ultralytics and
torch in it into an inert record; from the records come the architecture, the category names and the weights, and
the network is built anew from the installed ultralytics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from instbench.errors import InputError
from instbench.evaluators.folders import DetectorCard, fit_weights
from instbench.evaluators.yolo_model import ARCHITECTURE_KEYS, build_yolo_model
from reference_model.checkpoints import CheckpointError, open_checkpoint
from reference_model.checkpoints.pickles import Placeholder
from reference_model.checkpoints.tensors import LazyTensor

__all__ = ["COCO_BORDER", "COCO_IMAGE_SIZE", "YoloCheckpoint", "read_yolo_checkpoint"]

COCO_IMAGE_SIZE = 640
COCO_BORDER = 16
"""Grey pixels around the letterboxed square: ``yolo val`` rounds 640 / 32 + 0.5 up to 21 cells of 32 pixels."""

_CLASSES = ("ultralytics.", "torch.nn.")
_TASKS = {
    "SegmentationModel": "ultralytics-segment",
    "DetectionModel": "ultralytics-detect",
    "YOLOv10DetectionModel": "ultralytics-detect",
}
_MAX_DEPTH = 24


@dataclass(frozen=True, slots=True)
class YoloCheckpoint:
    """What a ``.pt`` file holds.

    Attributes:
        spec: Architecture, as in ultralytics' model YAML files.
        card: Categories and inference settings.
        model: The network in float32, with the weights of the file, in train mode.
    """

    spec: dict[str, Any]
    card: DetectorCard
    model: nn.Module


@dataclass(slots=True)
class _Found:
    """Tensors and settings of a module tree, by dotted name."""

    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    eps: dict[str, float] = field(default_factory=dict)


def read_yolo_checkpoint(path: Path) -> YoloCheckpoint:
    """Reads a detection or segmentation checkpoint of ultralytics (v8 and later).

    The averaged weights (``ema``) are preferred over ``model``, as ultralytics does. Only the listed classes of
    ultralytics and torch may occur, as records; a pickle that asks for anything else is refused.

    Args:
        path: The ``.pt`` file.

    Returns:
        Architecture, settings and network.

    Raises:
        InputError: If the file is missing, damaged, of another kind, asks for code to be run, or its weights do
            not fit its architecture.
    """
    try:
        with open_checkpoint(path, classes=_CLASSES) as content:
            return _from_content(content, path)
    except CheckpointError as error:
        raise InputError(str(error)) from None


def _from_content(content: Mapping[str, Any], path: Path) -> YoloCheckpoint:
    record = content.get("ema") or content.get("model")
    if not isinstance(record, Placeholder) or not isinstance(record.state, dict):
        raise InputError(
            f"{path}: holds no ultralytics network (neither 'ema' nor 'model'); give YOLO weights"
        )
    name = record.path.rsplit(".", 1)[-1]
    if name not in _TASKS or not record.path.startswith("ultralytics."):
        raise InputError(
            f"{path}: holds a {record.path}; give weights of a YOLO detection or segmentation model"
        )
    if content.get("modelopt"):
        raise InputError(f"{path}: weights of quantisation-aware training; give the plain weights")
    categories = _categories(record.state.get("names"), path)
    spec = _architecture(record.state.get("yaml"), path)
    kind: Any = _TASKS[name]
    found = _Found()
    _walk(record, "", found, path, 0)
    held = sum(math.prod(tensor.shape) for tensor in found.tensors.values())
    model = build_yolo_model(spec, len(categories), kind, f"{path}: architecture", held=held)
    fit_weights(model, found.tensors, path)
    modules = dict(model.named_modules())
    for key, eps in found.eps.items():
        modules[key].eps = eps
    card = DetectorCard(kind=kind, categories=categories, image_size=_image_size(content), border=COCO_BORDER)
    return YoloCheckpoint(spec, card, model)


def _categories(names: Any, path: Path) -> tuple[str, ...]:
    listed = (
        list(names.values()) if isinstance(names, dict) and list(names) == list(range(len(names))) else names
    )
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
        raise InputError(f"{path}: field names is not a list of category names; save the weights again")
    return tuple(listed)


def _architecture(spec: Any, path: Path) -> dict[str, Any]:
    if not isinstance(spec, dict) or not all(isinstance(key, str) for key in spec):
        raise InputError(
            f"{path}: field yaml (the architecture) is missing; save the weights with ultralytics 8"
        )
    if spec.get("activation"):
        raise InputError(f"{path}: field activation of the architecture is a Python expression; refused")
    if spec.get("ch", 3) != 3 or spec.get("channels", 3) != 3:
        raise InputError(f"{path}: a network for images of {spec.get('channels')} channels; give one for RGB")
    # Names of files and categories; `ARCHITECTURE_KEYS` alone shape the network.
    return {key: value for key, value in spec.items() if key in ARCHITECTURE_KEYS and key not in ("nc", "ch")}


def _image_size(content: Mapping[str, Any]) -> int:
    """The size that the weights were trained at, which ``yolo val`` takes too; 640 if the file does not say."""
    arguments = content.get("train_args")
    size = arguments.get("imgsz") if isinstance(arguments, dict) else None
    return size if type(size) is int and 0 < size <= 4096 and size % 32 == 0 else COCO_IMAGE_SIZE


def _walk(record: Placeholder, prefix: str, found: _Found, path: Path, depth: int) -> None:
    """Collects what ``state_dict`` of the pickled module would give."""
    state = record.state
    if depth > _MAX_DEPTH or not isinstance(state, dict):
        raise InputError(
            f"{path}: module {prefix or '(root)'} is damaged or nested too deep; save the weights again"
        )
    for part in ("_parameters", "_buffers"):
        for name, value in _entries(state, part, prefix, path):
            if not isinstance(value, LazyTensor):
                raise InputError(f"{path}: {part} {prefix}{name} is no tensor; save the weights again")
            found.tensors[f"{prefix}{name}"] = value
    if record.path.endswith((".BatchNorm2d", ".GroupNorm", ".LayerNorm")) and isinstance(
        state.get("eps"), float
    ):
        found.eps[prefix.rstrip(".")] = state["eps"]
    for name, child in _entries(state, "_modules", prefix, path):
        if not isinstance(child, Placeholder):
            raise InputError(f"{path}: module {prefix}{name} is damaged; save the weights again")
        _walk(child, f"{prefix}{name}.", found, path, depth + 1)


def _entries(state: Mapping[str, Any], part: str, prefix: str, path: Path) -> list[tuple[str, Any]]:
    entries = state.get(part) or {}
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise InputError(f"{path}: {part} of module {prefix or '(root)'} are damaged; save the weights again")
    skipped = _names_of_set(state.get("_non_persistent_buffers_set")) if part == "_buffers" else set()
    return [(name, value) for name, value in entries.items() if value is not None and name not in skipped]


def _names_of_set(value: Any) -> set[str]:
    """Members of a pickled set, which the reader leaves as a record (protocol 2) or a list."""
    if isinstance(value, Placeholder):
        value = value.arguments[0] if value.arguments else []
    return {name for name in value if isinstance(name, str)} if isinstance(value, list | tuple) else set()
