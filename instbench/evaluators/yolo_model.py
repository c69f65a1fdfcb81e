"""Builds ultralytics detection and segmentation networks from an architecture, quietly, executing nothing."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, Literal

from instbench.errors import InputError
from instbench.evaluators.folders import one_line

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURE_KEYS", "build_segmentation_model", "build_yolo_model", "quiet_ultralytics"]

_IMPORT_ENVIRONMENT = {"YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}
# What ultralytics replaces for the whole process when it is imported. Its `PIL.Image.open` installs a package
# by pip when it meets a damaged picture; nobody else's pictures may be read that way.
_PATCHED = (
    ("PIL.Image", "open"),
    ("torch", "save"),
    ("cv2", "imread"),
    ("cv2", "imwrite"),
    ("cv2", "imshow"),
)
ARCHITECTURE_KEYS = frozenset(
    {
        "nc",
        "scales",
        "scale",
        "depth_multiple",
        "width_multiple",
        "backbone",
        "head",
        "ch",
        "reg_max",
        "end2end",
    }
)
_MAX_LAYERS: Final = 1000
_MAX_DEPTH: Final = 10
_BUILDERS: Final = {
    "ultralytics-segment": ("SegmentationModel", "segmentation"),
    "ultralytics-detect": ("DetectionModel", "detection"),
}


@contextmanager
def quiet_ultralytics() -> Iterator[None]:
    """Keeps ultralytics from talking, going online, installing packages and patching other libraries on import."""
    if "ultralytics.utils" in sys.modules:
        yield
        return
    names = (*_IMPORT_ENVIRONMENT, "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    modules = {module: importlib.import_module(module) for module, _ in _PATCHED}
    originals = {(module, name): getattr(modules[module], name) for module, name in _PATCHED}
    os.environ.update(_IMPORT_ENVIRONMENT)
    try:
        yield
    finally:
        for (module, name), original in originals.items():
            setattr(modules[module], name, original)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def build_segmentation_model(
    spec: Mapping[str, Any], num_classes: int, source: str = "model.yaml"
) -> nn.Module:
    """Builds an untrained ``SegmentationModel``; see `build_yolo_model`."""
    return build_yolo_model(spec, num_classes, "ultralytics-segment", source)


def build_yolo_model(
    spec: Mapping[str, Any],
    num_classes: int,
    kind: Literal["ultralytics-segment", "ultralytics-detect"],
    source: str = "model.yaml",
    *,
    held: int | None = None,
) -> nn.Module:
    """Builds an untrained ``SegmentationModel`` or ``DetectionModel`` of ``ultralytics.nn.tasks``.

    Args:
        spec: Architecture as in ultralytics' model YAML files.
        num_classes: Number of categories; replaces ``nc``.
        kind: Kind of the detector.
        source: Where the architecture comes from, for messages.
        held: How many numbers its weights hold; an architecture that asks for more is refused before it takes memory.

    Returns:
        The network, with random weights, in train mode.

    Raises:
        InputError: The architecture has an unknown key or layer, or ends in another head. ultralytics evaluates
            some fields as Python, so only plain layer names are let through.
    """
    _check_spec(spec, source)
    with quiet_ultralytics():
        from ultralytics.nn import tasks
        from ultralytics.nn.modules import Detect, Segment
    builder, what = _BUILDERS[kind]
    try:
        if held is not None:
            _check_room(spec, num_classes, source, held)
        model: nn.Module = getattr(tasks, builder)(
            {**spec, "nc": num_classes}, ch=3, nc=num_classes, verbose=False
        )
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{source}: not a {what} architecture that ultralytics can build ({one_line(error)})"
        ) from error
    head: Any = list(model.children())[-1][-1]  # type: ignore[index]
    makes_masks = isinstance(head, Segment)
    if not isinstance(head, Detect) or makes_masks != (kind == "ultralytics-segment"):
        raise InputError(f"{source}: not a {what} architecture; its last layer is {type(head).__name__}")
    return model


def _check_room(spec: Mapping[str, Any], num_classes: int, source: str, held: int) -> None:
    """Counts the numbers of the layers where tensors have sizes but no memory."""
    import torch
    from ultralytics.nn import tasks

    from reference_model.checkpoints.inspection import SPARE

    with torch.device("meta"):
        layers, _ = tasks.parse_model({**deepcopy(dict(spec)), "nc": num_classes}, ch=3, verbose=False)
    asked = sum(parameter.numel() for parameter in layers.parameters())
    if asked > held + SPARE:
        raise InputError(
            f"{source}: asks for {asked} numbers, but the weights hold {held}; use a matching pair"
        )


def _check_spec(spec: Mapping[str, Any], source: str) -> None:
    unknown = sorted(set(spec) - ARCHITECTURE_KEYS)
    if unknown:
        raise InputError(
            f"{source}: field {unknown[0]!r} is not allowed; remove it (known: {sorted(ARCHITECTURE_KEYS)})"
        )
    with quiet_ultralytics():
        from ultralytics.nn import modules
    layers = [*(spec.get("backbone") or []), *(spec.get("head") or [])]
    if not layers:
        raise InputError(f"{source}: fields backbone and head are empty; give the layers of the network")
    scales = spec.get("scales")
    depths = [spec.get("depth_multiple", 1), *(scales.values() if isinstance(scales, dict) else [])]
    for depth in (one[0] if isinstance(one, list) and one else one for one in depths):
        if not isinstance(depth, int | float) or not 0 < depth <= _MAX_DEPTH:
            raise InputError(f"{source}: depths of the scales must be numbers up to {_MAX_DEPTH}")
    if len(layers) > _MAX_LAYERS:
        raise InputError(f"{source}: {len(layers)} layers; at most {_MAX_LAYERS} are built")
    for number, layer in enumerate(layers):
        if not isinstance(layer, list) or len(layer) != 4 or not isinstance(layer[2], str):
            raise InputError(f"{source}: layer {number} is not [from, repeats, module, args]")
        if type(layer[1]) is not int or not 0 < layer[1] <= _MAX_LAYERS:
            raise InputError(f"{source}: layer {number}: repeats must be a number from 1 to {_MAX_LAYERS}")
        name = layer[2]
        if name not in modules.__all__ and not re.fullmatch(
            r"nn\.(Upsample|Identity|MaxPool2d|ZeroPad2d)", name
        ):
            raise InputError(
                f"{source}: layer {number}: unknown module {name!r}; use a module of ultralytics"
            )
        if not _is_plain(layer[3]):
            raise InputError(f"{source}: layer {number}: args must be numbers, booleans, null or plain words")


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return (
        value is None
        or isinstance(value, (bool, int, float))
        or (isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{0,32}", value) is not None)
    )
