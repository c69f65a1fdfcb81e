"""Pictures of scenes: vectorised painting with anti-aliased edges."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from instbench.datasets.shapes.scenes import Background, Scene, SceneObject
from instbench.datasets.shapes.world import BACKGROUND_TINTS, COLORS

__all__ = ["render"]

Image = NDArray[np.float32]

_GRADIENT_LEVELS = 22.0
_CLOUD_LEVELS = 20.0
_LINE_LEVELS = 14.0
_LINE_PERIOD = 16


@cache
def _grid(size: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    axis = np.arange(size, dtype=np.int32)
    return axis[None, :], axis[:, None]


@cache
def _bilinear(knots: int, size: int) -> Image:
    """Interpolation matrix [size, knots] from evenly spaced knots to pixel centres."""
    position = (np.arange(size) + 0.5) / size * (knots - 1)
    weights = 1.0 - np.abs(position[:, None] - np.arange(knots)[None, :])
    return np.clip(weights, 0.0, 1.0).astype(np.float32)


def _paint_background(background: Background, size: int) -> Image:
    x, y = _grid(size)
    tint = np.asarray(BACKGROUND_TINTS[background.tint], dtype=np.float32)
    if background.kind == "gradient":
        ramp = (
            np.cos(background.angle) * (x / size - 0.5) + np.sin(background.angle) * (y / size - 0.5)
        ) * 2.0
        shade = (ramp * _GRADIENT_LEVELS).astype(np.float32)
    elif background.kind == "cloudy":
        matrix = _bilinear(background.cloud.shape[0], size)
        shade = matrix @ background.cloud.astype(np.float32) @ matrix.T * np.float32(_CLOUD_LEVELS)
    elif background.kind == "lined":
        lines = np.where(y % _LINE_PERIOD < 2, -_LINE_LEVELS, 0.0).astype(np.float32)
        shade = np.broadcast_to(lines, (size, size))
    else:
        shade = np.zeros((size, size), dtype=np.float32)
    return tint[None, None, :] + shade[:, :, None]


def _second_tone(color: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The other tone of a texture: the colour word must stay true for both."""
    if name == "black":
        return color + np.float32(66.0)
    if name == "white":
        return color - np.float32(54.0)
    return color * np.float32(0.5)


def _texture(item: SceneObject, size: int) -> NDArray[np.bool_] | None:
    """Pixels of the canvas that take the second tone, bool [S, S], or None for plain."""
    x, y = _grid(size)
    x, y = x + item.phase[0], y + item.phase[1]
    half = item.period // 2
    if item.texture == "striped":
        return np.broadcast_to(y % item.period < half, (size, size))
    if item.texture == "checkered":
        return np.asarray((x // half + y // half) % 2 == 0)
    if item.texture == "dotted":
        dx, dy = x % item.period - (item.period - 1) / 2, y % item.period - (item.period - 1) / 2
        return np.asarray(dx * dx + dy * dy <= (0.28 * item.period) ** 2)
    return None


def render(scene: Scene) -> NDArray[np.uint8]:
    """Paints a scene.

    Args:
        scene: The scene.

    Returns:
        sRGB picture, uint8 [S, S, 3].
    """
    canvas = _paint_background(scene.background, scene.canvas_size)
    for item, coverage in zip(scene.objects, scene.coverages, strict=True):
        rows = np.flatnonzero(coverage.any(axis=1))
        columns = np.flatnonzero(coverage.any(axis=0))
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        color = np.asarray(COLORS[item.color], dtype=np.float32) + np.asarray(item.jitter, dtype=np.float32)
        pattern = _texture(item, scene.canvas_size)
        if pattern is None:
            paint = color[None, None, :]
        else:
            paint = np.where(pattern[window][:, :, None], _second_tone(color, item.color), color)
        alpha = coverage[window][:, :, None]
        canvas[window] = canvas[window] * (1.0 - alpha) + paint * alpha
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
