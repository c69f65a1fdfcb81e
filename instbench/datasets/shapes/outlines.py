"""Outlines of the shape categories as inside tests on the unit box.

Every function takes ``x`` and ``y`` (float arrays that broadcast, in [-1, 1] over the object's box,
y down) and returns a boolean array. Only +, -, *, comparisons and precomputed constants are used,
so that a mask is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["OUTLINES"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _circle(x: Floats, y: Floats) -> Bools:
    return np.asarray(x * x + y * y <= 1.0)


def _square(x: Floats, y: Floats) -> Bools:
    return np.asarray((np.abs(x) <= 1.0) & (np.abs(y) <= 1.0))


def _triangle(x: Floats, y: Floats) -> Bools:
    return np.asarray((y <= 1.0) & (2.0 * np.abs(x) <= y + 1.0))


def _cross(x: Floats, y: Floats) -> Bools:
    ax, ay = np.abs(x), np.abs(y)
    return np.asarray(((ax <= 0.34) & (ay <= 1.0)) | ((ay <= 0.34) & (ax <= 1.0)))


def _heart(x: Floats, y: Floats) -> Bools:
    # (u^2 + v^2 - 1)^3 <= u^2 v^3 spans |u| <= 1.139 and -1 <= v <= 1.228, v up.
    u = x * 1.139
    v = 0.114 - y * 1.114
    s = u * u + v * v - 1.0
    return np.asarray(s * s * s <= u * u * v * v * v)


# A pentagram is the set of points inside at least four of the five half-planes of its edges.
_STAR_RADIUS = math.cos(math.radians(72.0))
_STAR_NORMALS = tuple(
    (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    for angle in (54.0, 126.0, 198.0, 270.0, 342.0)
)
_STAR_HALF_WIDTH = math.cos(math.radians(18.0))
_STAR_BOTTOM = math.cos(math.radians(36.0))


def _star(x: Floats, y: Floats) -> Bools:
    # One tip up: the outline spans |u| <= cos 18 deg and -1 <= v <= cos 36 deg, v down.
    u = x * _STAR_HALF_WIDTH
    v = (y + 1.0) * (1.0 + _STAR_BOTTOM) / 2.0 - 1.0
    inside = np.zeros(np.broadcast_shapes(np.shape(u), np.shape(v)), dtype=np.int8)
    for normal_x, normal_y in _STAR_NORMALS:
        inside += u * normal_x + v * normal_y <= _STAR_RADIUS
    # Half-planes point outwards: a star point may violate one of them at most.
    return np.asarray(inside >= 4)


def _diamond(x: Floats, y: Floats) -> Bools:
    return np.asarray(np.abs(x) + np.abs(y) <= 1.0)


def _moon(x: Floats, y: Floats) -> Bools:
    # Full disc less a smaller one on the right; the box is that of the disc.
    dx = x - 0.62
    return np.asarray((x * x + y * y <= 1.0) & (dx * dx + y * y > 0.5625))


def _hexagon(x: Floats, y: Floats) -> Bools:
    return np.asarray((np.abs(y) <= 1.0) & (2.0 * np.abs(x) + np.abs(y) <= 2.0))


def _arrow(x: Floats, y: Floats) -> Bools:
    # Points right: a shaft and a triangular head.
    shaft = (x <= 0.1) & (x >= -1.0) & (np.abs(y) <= 0.36)
    head = (x >= 0.0) & (np.abs(y) <= 1.0 - x)
    return np.asarray(shaft | head)


OUTLINES: dict[str, Callable[[Floats, Floats], Bools]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "heart": _heart,
    "star": _star,
    "diamond": _diamond,
    "moon": _moon,
    "hexagon": _hexagon,
    "arrow": _arrow,
}
"""Inside test of every category."""
