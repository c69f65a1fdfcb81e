"""Layouts: what one image must show, and where.

`from_coco` and `restrict` share their names with the modules that hold them; the package exports the
functions. Modules that need more than numpy are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from instbench.layouts.from_coco import from_coco, image_key
from instbench.layouts.restrict import restrict
from instbench.layouts.types import Condition, Instance, Layout, MaskRLE, PointXY

if TYPE_CHECKING:
    from instbench.layouts.drawing import asked_and_found, draw_detections, draw_layout
    from instbench.layouts.ground_truth import canvas_ground_truth
    from instbench.layouts.serialization import layout_from_json, layout_to_json, read_jsonl, write_jsonl

__all__ = [
    "Condition",
    "Instance",
    "Layout",
    "MaskRLE",
    "PointXY",
    "asked_and_found",
    "canvas_ground_truth",
    "draw_detections",
    "draw_layout",
    "from_coco",
    "image_key",
    "layout_from_json",
    "layout_to_json",
    "read_jsonl",
    "restrict",
    "write_jsonl",
]

_LAZY = {
    "asked_and_found": "drawing",
    "draw_detections": "drawing",
    "draw_layout": "drawing",
    "canvas_ground_truth": "ground_truth",
    "layout_from_json": "serialization",
    "layout_to_json": "serialization",
    "read_jsonl": "serialization",
    "write_jsonl": "serialization",
}


def __getattr__(name: str) -> Any:
    """Loads the heavier functions on first use."""
    if name in _LAZY:
        return getattr(import_module(f"instbench.layouts.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'instbench.layouts' has no attribute {name!r}")
