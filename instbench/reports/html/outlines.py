"""Masks as outlines for drawing."""

from __future__ import annotations

import cv2
import numpy as np

from instbench.layouts.rle import decode, nearest
from instbench.layouts.types import MaskRLE

__all__ = ["SCALE", "mask_outlines"]

SCALE = 1000
"""Drawing units per side of the canvas; coordinates are whole numbers."""

_SIDE = 160  # pixels; finer outlines cannot be told apart in a report
_TOLERANCE = 0.6  # pixels at that size


def mask_outlines(mask: MaskRLE) -> list[list[int]]:
    """Outlines of the parts of a mask and of its holes.

    Args:
        mask: The mask, at any size.

    Returns:
        Closed polygons as flat lists x0, y0, x1, y1, ... in drawing units (0 to `SCALE`, x right, y down).
    """
    height, width = min(mask.height, _SIDE), min(mask.width, _SIDE)
    inside = nearest(decode(mask), height, width).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, _TOLERANCE, closed=True).reshape(-1, 2)
        if len(simple) >= 3:
            units = (simple + 0.5) * (SCALE / np.array([width, height]))
            outlines.append(np.rint(units).astype(int).reshape(-1).tolist())
    return outlines
