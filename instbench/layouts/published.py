"""What the published scripts show to the model, where that differs from the layout (paper edition)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instbench.layouts.from_coco import MAX_INSTANCES
from instbench.layouts.locations import nearest_resize
from instbench.layouts.rle import decode, encode
from instbench.layouts.types import Instance, Layout

__all__ = ["SEGMENT_SIZE", "as_published"]

SEGMENT_SIZE = 512
"""Side of the masks that the published scripts pass on, in pixels."""

_SMALLEST_SIDE = 1e-6


def as_published(layout: Layout) -> Layout:
    """The layout as the published generation script passes it to the model.

    * The first 30 annotations in file order are shown; the prompt still names all of them.
    * In an image with exactly one annotation the mask loses its instance axis (`squeeze`): the segment
      branch gets the top row of the 512 x 512 mask in place of every row, which is empty unless the object
      touches the top of the image. Points, scribble and mask points are right.
    * Corners are cut to the canvas, and a side of no length gets one of a millionth, since the models here
      refuse others. The published code passes such boxes on; the difference is below rounding.

    Args:
        layout: A full layout of the paper edition.

    Returns:
        The layout to restrict and show.
    """
    shown = tuple(_drawable(one) for one in layout.instances[:MAX_INSTANCES])
    if len(layout.instances) == 1:
        shown = (_squeezed(shown[0]),)
    return replace(layout, instances=shown)


def _squeezed(instance: Instance) -> Instance:
    if instance.mask is None:
        return instance
    top_row = nearest_resize(decode(instance.mask), SEGMENT_SIZE)[0]
    if not top_row.any():  # an empty segment is the same to the model as none
        return replace(instance, mask=None)
    return replace(instance, mask=encode(np.tile(top_row, (SEGMENT_SIZE, 1))))


def _drawable(instance: Instance) -> Instance:
    if instance.box_xyxy is None:
        return instance
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in instance.box_xyxy)
    x0, x1 = _side(x0, x1)
    y0, y1 = _side(y0, y1)
    point = instance.point_xy
    if point is not None:
        point = (min(max(point[0], 0.0), 1.0), min(max(point[1], 0.0), 1.0))
    return replace(instance, box_xyxy=(x0, y0, x1, y1), point_xy=point)


def _side(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    low = min(low, 1.0 - _SMALLEST_SIDE)
    return low, low + _SMALLEST_SIDE
