"""Conversions between relative and pixel coordinates, and between forms of boxes.

Relative coordinates run from 0 to 1 over the whole canvas, x to the right and y down; pixel ``i``
covers the interval [i, i + 1) and has its centre at ``i + 0.5``. All functions take array-likes and
return new float64 arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "boxes_xywh_to_xyxy",
    "boxes_xyxy_to_pixels",
    "boxes_xyxy_to_relative",
    "boxes_xyxy_to_xywh",
    "clip_boxes_xyxy",
    "pixel_centres_to_relative",
    "points_to_pixels",
    "points_to_relative",
]

FloatArray = NDArray[np.float64]


def boxes_xyxy_to_pixels(boxes_xyxy: ArrayLike, width: float, height: float) -> FloatArray:
    """Relative boxes [..., 4] (x0, y0, x1, y1) in pixels of a width x height canvas."""
    return _as_boxes(boxes_xyxy) * np.array([width, height, width, height], dtype=np.float64)


def boxes_xyxy_to_relative(boxes_xyxy: ArrayLike, width: float, height: float) -> FloatArray:
    """Pixel boxes [..., 4] (x0, y0, x1, y1) of a width x height canvas in relative coordinates."""
    return _as_boxes(boxes_xyxy) / np.array([width, height, width, height], dtype=np.float64)


def boxes_xywh_to_xyxy(boxes_xywh: ArrayLike) -> FloatArray:
    """COCO boxes [..., 4] (x, y, width, height) as corners (x0, y0, x1, y1)."""
    boxes = _as_boxes(boxes_xywh)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def boxes_xyxy_to_xywh(boxes_xyxy: ArrayLike) -> FloatArray:
    """Corner boxes [..., 4] as COCO boxes (x, y, width, height)."""
    boxes = _as_boxes(boxes_xyxy)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def clip_boxes_xyxy(boxes_xyxy: ArrayLike, width: float = 1.0, height: float = 1.0) -> FloatArray:
    """Boxes [..., 4] clipped to a width x height canvas; a box outside gets zero area on the border."""
    return np.clip(_as_boxes(boxes_xyxy), 0.0, np.array([width, height, width, height], dtype=np.float64))


def points_to_pixels(points_xy: ArrayLike, width: float, height: float) -> FloatArray:
    """Relative points [..., 2] in pixels of a width x height canvas."""
    return _as_points(points_xy) * np.array([width, height], dtype=np.float64)


def points_to_relative(points_xy: ArrayLike, width: float, height: float) -> FloatArray:
    """Points [..., 2] in pixels of a width x height canvas in relative coordinates."""
    return _as_points(points_xy) / np.array([width, height], dtype=np.float64)


def pixel_centres_to_relative(pixels_xy: ArrayLike, width: float, height: float) -> FloatArray:
    """Relative position of the centres of pixels [..., 2], given as integer column and row."""
    return points_to_relative(_as_points(pixels_xy) + 0.5, width, height)


def _as_boxes(boxes: ArrayLike) -> FloatArray:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"boxes must have 4 values each, got shape {array.shape}")
    return array


def _as_points(points: ArrayLike) -> FloatArray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != 2:
        raise ValueError(f"points must have 2 values each, got shape {array.shape}")
    return array
