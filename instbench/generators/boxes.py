"""Every location as a box, for models that take nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from instbench.layouts.restrict import restrict
from instbench.layouts.rle import decode
from instbench.layouts.types import Condition, Instance, Layout, MaskRLE, PointXY

__all__ = ["MIN_SIDE", "POINT_SIDE", "as_boxes"]

POINT_SIDE = 0.4
"""Side of the box around a point, as a share of the canvas side. A choice of ours: about the mean object of Shapes."""

MIN_SIDE = 1 / 64
"""Least side of a box around a scribble or mask, as a share of the canvas side: one latent cell of a 512 px canvas."""

Box = tuple[float, float, float, float]


def as_boxes(layout: Layout, conditions: Iterable[Condition]) -> Layout:
    """A layout in which every instance has a box and no other location.

    Only what the conditions allow is looked at. Of several allowed formats the first that an instance has
    counts, in this order: its box as it is; the bounding box of its mask; the bounding box of its scribble;
    a square of side `POINT_SIDE` around its point. Boxes are cut at the canvas; those of masks and scribbles
    are at least `MIN_SIDE` wide and high.

    Args:
        layout: The layout, relative coordinates; it is restricted once more.
        conditions: The formats that may be seen.

    Returns:
        The layout of boxes. An instance without any allowed location (an empty mask) has no box.
    """
    shown = restrict(layout, conditions)
    return replace(shown, instances=tuple(map(_boxed, shown.instances)))


def _boxed(instance: Instance) -> Instance:
    return replace(
        instance,
        box_xyxy=_box_of(instance),
        mask=None,
        mask_points_xy=None,
        scribble_xy=None,
        point_xy=None,
        condition=None,  # whatever it was asked in, a box is shown
    )


def _box_of(instance: Instance) -> Box | None:
    if instance.box_xyxy is not None:
        return instance.box_xyxy
    if instance.mask is not None:
        return _around_mask(instance.mask)
    if instance.scribble_xy:
        return _around_points(instance.scribble_xy)
    if instance.point_xy is not None:
        x, y = instance.point_xy
        return _grown((x, y, x, y), POINT_SIDE)
    return None


def _around_mask(mask: MaskRLE) -> Box | None:
    pixels = decode(mask)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return None
    x0, x1 = columns[0] / mask.width, (columns[-1] + 1) / mask.width
    y0, y1 = rows[0] / mask.height, (rows[-1] + 1) / mask.height
    return _grown((float(x0), float(y0), float(x1), float(y1)), MIN_SIDE)


def _around_points(points: Iterable[PointXY]) -> Box:
    table = np.asarray(tuple(points), dtype=np.float64)
    (x0, y0), (x1, y1) = table.min(axis=0).tolist(), table.max(axis=0).tolist()
    return _grown((x0, y0, x1, y1), MIN_SIDE)


def _grown(box: Box, side: float) -> Box:
    """The box, grown around its centre to the side where it is smaller, cut at the canvas."""
    x0, y0, x1, y1 = box
    (x0, x1), (y0, y1) = _span(x0, x1, side), _span(y0, y1, side)
    return x0, y0, x1, y1


def _span(low: float, high: float, side: float) -> tuple[float, float]:
    spare = max(0.0, side - (high - low)) / 2
    return max(0.0, low - spare), min(1.0, high + spare)
