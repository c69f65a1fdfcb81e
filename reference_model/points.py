"""Points that stand for a mask: scribbles and mask points, exactly as the published code draws them.

Results are flat `[x0, y0, x1, y1, ...]` float64 arrays in pixels of the given mask (pixel centres have
integer coordinates, origin at the top left). Random generators are always passed in; no function touches
global state. With `numpy.random.RandomState(seed)` and `random.Random(seed)` the draws equal those of the
published code after `numpy.random.seed(seed)` and `random.seed(seed)`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage import measure

__all__ = [
    "boundary_points",
    "mask_points_from_mask",
    "relative_points",
    "reorder_scribbles",
    "scribble_points_from_mask",
]

Points = NDArray[np.float64]


def _as_plane(mask: ArrayLike) -> NDArray[np.bool_]:
    plane = np.asarray(mask)
    if plane.ndim == 3 and plane.shape[2] == 1:
        plane = plane[:, :, 0]
    if plane.ndim != 2:
        raise ValueError(f"mask: shape {plane.shape}, expected [H, W] or [H, W, 1]")
    return plane != 0


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count: {count}, expected at least 1 point")


def _by_distance(points: NDArray[np.float64], origin: ArrayLike = (0.0, 0.0)) -> NDArray[np.float64]:
    """Sorts `[n, 2]` points by distance to `origin`; ties keep their order."""
    offset = points - np.asarray(origin, dtype=np.float64)
    return points[np.argsort(np.sqrt((offset * offset).sum(axis=1)), kind="stable")]


def scribble_points_from_mask(
    mask: ArrayLike, count: int = 20, *, rng: np.random.RandomState | np.random.Generator
) -> Points:
    """Draws random mask pixels and orders them by distance to the origin.

    One call `rng.choice(n, count, replace=n < count)` over the pixels in row-major order; no call if the mask
    is empty. Published as `sample_random_points_from_mask`.

    Args:
        mask: `[H, W]` or `[H, W, 1]`, any dtype; inside where not zero.
        count: Number of points.
        rng: Source of randomness; a `RandomState` reproduces the published draws.

    Returns:
        `[2 * count]` x0, y0, x1, ... in pixels; zeros if the mask is empty.

    Raises:
        ValueError: If the mask has a wrong shape or `count` is below 1.
    """
    _check_count(count)
    coords = np.argwhere(_as_plane(mask))
    if len(coords) == 0:
        return np.zeros(2 * count)
    chosen = coords[rng.choice(len(coords), count, replace=len(coords) < count)].astype(np.float64)
    return _by_distance(chosen)[:, ::-1].ravel()


def boundary_points(mask: ArrayLike) -> Points:
    """All points of the contours of a mask, contour after contour.

    The mask is padded by one pixel and the pad is not taken off again, as published (`binary_mask_to_polygon`
    with tolerance 0), so every point lies one pixel to the right and below the true contour.

    Args:
        mask: `[H, W]` or `[H, W, 1]`, any dtype; inside where not zero.

    Returns:
        `[n, 2]` xy in pixels, each contour closed; `[0, 2]` if the mask is empty.

    Raises:
        ValueError: If the mask has a wrong shape.
    """
    padded = np.pad(_as_plane(mask).astype(np.float64), 1)
    contours = []
    for contour in measure.find_contours(padded, 0):
        closed = contour if np.array_equal(contour[0], contour[-1]) else np.vstack((contour, contour[0]))
        simplified = measure.approximate_polygon(closed, 0)
        if len(simplified) >= 3:
            contours.append(np.maximum(simplified[:, ::-1], 0.0))
    return np.concatenate(contours) if contours else np.zeros((0, 2))


def _inside_points(plane: NDArray[np.bool_], count: int, rng: random.Random) -> Points:
    """`[count, 2]` xy spread over the distances to the centroid (random with repeats in tiny masks)."""
    foreground = np.argwhere(plane).astype(np.float64)
    if len(foreground) < count:
        picked = foreground[[rng.choice(range(len(foreground))) for _ in range(count)]]
    else:
        ordered = _by_distance(foreground, foreground.mean(axis=0))
        step = len(ordered) // count  # the remainder, farthest from the centroid, is left out
        picked = ordered[np.arange(count) * step + step // 2]
    return picked[:, ::-1]


def mask_points_from_mask(mask: ArrayLike, count: int = 256, *, rng: random.Random) -> Points | None:
    """Half of the points from the contour, half from the inside, ordered by distance to the origin.

    Deterministic unless the mask has fewer pixels than half of `count`: then the inside points are drawn with
    `rng.choice`, one call per point. Published as `sample_sparse_points_from_mask`.

    Args:
        mask: `[H, W]` or `[H, W, 1]`, any dtype; inside where not zero.
        count: Number of points, at least 2.
        rng: Source of randomness for tiny masks; `random.Random(seed)` reproduces the published draws.

    Returns:
        `[2 * count]` x0, y0, x1, ... in pixels, or None if the mask is empty (the published callers then use
        zeros). Contour points are shifted by one pixel, see `boundary_points`, so they may reach W or H.

    Raises:
        ValueError: If the mask has a wrong shape or `count` is below 2.
    """
    _check_count(count - 1)
    plane = _as_plane(mask)
    outline = boundary_points(plane)
    if len(outline) == 0:
        return None
    on_outline = count // 2
    outline = outline[np.linspace(0, len(outline) - 1, on_outline).astype(np.int64)]
    inside = _inside_points(plane, count - on_outline, rng)
    return _by_distance(np.concatenate((inside, outline))).ravel()


def reorder_scribbles(points: Sequence[ArrayLike], count: int = 20) -> list[ArrayLike]:
    """Orders points by distance to the origin and picks some of them equally spaced.

    With at least `count` points every `len(points) // count`-th is taken from the start, so the far end may
    be left out; with fewer, points repeat. Published under the same name. As there, an element may also be
    a whole stroke (`[n, 2]`), whose distance is the norm of all its numbers.

    Args:
        points: The points, `[x, y]` each, pixels or relative.
        count: Number of points to return.

    Returns:
        `count` elements of `points`, sorted by distance (stable).

    Raises:
        ValueError: If `points` is empty or `count` is below 1.
    """
    _check_count(count)
    if len(points) == 0:
        raise ValueError("points: empty; a scribble needs at least one point")

    def distance(point: ArrayLike) -> float:
        return float(np.linalg.norm(np.asarray(point, dtype=np.float64)))

    ordered = sorted(points, key=distance)
    total = len(ordered)
    gap = total // count
    picked = [ordered[i * gap if gap else i * total // count] for i in range(count)]
    return sorted(picked, key=distance)


def relative_points(points: ArrayLike, width: float, height: float) -> Points:
    """Divides pixel coordinates by the canvas size and clips them at 1, as published (`convert_points`).

    Args:
        points: `[..., 2n]` x0, y0, x1, ... in pixels.
        width: Width of the canvas.
        height: Height of the canvas.

    Returns:
        The relative coordinates, at most 1 (negative ones stay negative), float64, same shape.

    Raises:
        ValueError: If the last axis is odd or the canvas is empty.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] % 2:
        raise ValueError(f"points: shape {values.shape}, expected x and y in turn on the last axis")
    if width <= 0 or height <= 0:
        raise ValueError(f"canvas: {width}x{height}, expected positive sizes")
    sizes = np.tile(np.asarray([width, height], dtype=np.float64), values.shape[-1] // 2)
    return np.minimum(values / sizes, 1.0)
