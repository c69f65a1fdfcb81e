"""Points, scribbles and mask points of an instance.

Strict edition: everything is drawn from generators that are seeded by hashing the seed and the
annotation id, so an instance looks the same whatever else the file holds. Paper edition: one stream
for the whole file, in the order and with the quirks of the published script.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instbench.layouts.geometry import pixel_centres_to_relative, points_to_relative
from instbench.layouts.types import PointXY

__all__ = [
    "NUM_MASK_POINTS",
    "NUM_SCRIBBLE_POINTS",
    "InstancePoints",
    "PaperPoints",
    "nearest_resize",
    "strict_mask_points",
    "strict_point",
    "strict_scribble",
]

NUM_SCRIBBLE_POINTS = 20
NUM_MASK_POINTS = 256

_PAPER_SCRIBBLE_SIZE = 512
_MASK_POINT_DIGITS = 6  # 256 points of every instance are written to files; a hundredth of a pixel is enough

BoolMask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class InstancePoints:
    """Point formats of one instance, relative coordinates.

    Attributes:
        point_xy: The point.
        scribble_xy: Scribble points, or None without a mask.
        mask_points_xy: Mask points, or None without a mask.
    """

    point_xy: PointXY
    scribble_xy: tuple[PointXY, ...] | None
    mask_points_xy: tuple[PointXY, ...] | None


def strict_point(box_xyxy: tuple[float, float, float, float], mask: BoolMask | None) -> PointXY:
    """The point that stands for an instance: always on the object, so that a real image can score 100 %.

    Args:
        box_xyxy: Relative box.
        mask: Mask at source size [H, W], or None.

    Returns:
        The box centre if the pixel below it belongs to the mask (or there is none), else the centre
        of the nearest mask pixel; the first in row-major order on a tie.
    """
    x0, y0, x1, y1 = box_xyxy
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    if mask is None or not mask.any():
        return centre
    height, width = mask.shape
    column, row = min(int(centre[0] * width), width - 1), min(int(centre[1] * height), height - 1)
    if mask[row, column]:
        return centre
    rows, columns = np.nonzero(mask)
    distances = (columns + 0.5 - centre[0] * width) ** 2 + (rows + 0.5 - centre[1] * height) ** 2
    nearest = int(np.argmin(distances))
    x, y = pixel_centres_to_relative((columns[nearest], rows[nearest]), width, height)
    return float(x), float(y)


def strict_scribble(
    mask: BoolMask, annotation_id: int, *, seed: int = 0, count: int = NUM_SCRIBBLE_POINTS
) -> tuple[PointXY, ...] | None:
    """Scribble points: random mask pixels in order of their distance to the top left corner.

    The order is that of the published data preparation, which the reference model was trained on.

    Args:
        mask: Mask at source size [H, W].
        annotation_id: Id that the points are derived from.
        seed: Seed of the benchmark.
        count: Number of points; pixels repeat if the mask has fewer.

    Returns:
        Relative pixel centres, or None for an empty mask.
    """
    from reference_model.points import scribble_points_from_mask

    if not mask.any():
        return None
    cropped, left, top = _crop(mask)
    rng = np.random.RandomState(_derived_seed("scribble", annotation_id, seed))
    flat = scribble_points_from_mask(cropped, count, rng=rng)
    pixels = _placed(flat, left, top)
    return _as_tuples(pixel_centres_to_relative(pixels, mask.shape[1], mask.shape[0]))


def strict_mask_points(
    mask: BoolMask, annotation_id: int, *, seed: int = 0, count: int = NUM_MASK_POINTS
) -> tuple[PointXY, ...] | None:
    """Points that stand for a mask: half along its outline, half spread inside.

    Pixel indices are divided by the image size without the half-pixel shift, as in the published data
    preparation: these points only condition the model, which was trained on them that way.

    Args:
        mask: Mask at source size [H, W].
        annotation_id: Id that the points are derived from (random only for very small masks).
        seed: Seed of the benchmark.
        count: Number of points.

    Returns:
        Relative points ordered by distance to the top left corner, or None for an empty mask.
    """
    from reference_model.points import mask_points_from_mask

    if not mask.any():
        return None
    cropped, left, top = _crop(mask)
    rng = random.Random(_derived_seed("mask-points", annotation_id, seed))
    flat = mask_points_from_mask(cropped, count, rng=rng)
    if flat is None:  # no outline can be drawn around a mask this small
        return None
    pixels = _placed(flat, left, top)
    relative = points_to_relative(pixels, mask.shape[1], mask.shape[0]).clip(0.0, 1.0)
    return _as_tuples(relative.round(_MASK_POINT_DIGITS))


class PaperPoints:
    """Points as the published evaluation script draws them, from two random streams.

    The streams equal those of the script after ``numpy.random.seed(seed)`` and
    ``random.seed(python_seed)``.

    Args:
        seed: Seed of numpy's legacy generator, or the generator: scribbles, one draw per mask that is not empty.
        python_seed: Seed of Python's own generator, or the generator: mask points of masks below 128 pixels.
            None takes `seed` if that is a number, else 0.
    """

    def __init__(
        self, seed: int | np.random.RandomState, python_seed: int | random.Random | None = None
    ) -> None:
        if python_seed is None:
            python_seed = 0 if isinstance(seed, np.random.RandomState) else int(seed)
        if not isinstance(seed, np.random.RandomState):
            seed = np.random.RandomState(int(seed) % 2**32)
        if not isinstance(python_seed, random.Random):
            python_seed = random.Random(int(python_seed))
        self._numpy, self._python = seed, python_seed

    def draw(self, box_xyxy: tuple[float, float, float, float], mask: BoolMask) -> InstancePoints:
        """Draws the points of the next instance in file order.

        Quirk kept: scribbles are drawn on the mask resized to 512 x 512 but divided by the size of
        the image, then cut at 1; right only for images of 512 x 512.

        Args:
            box_xyxy: Relative box.
            mask: Mask at source size [H, W]; an empty one gives zeros.

        Returns:
            Box centre, 20 scribble points and 256 mask points.
        """
        from reference_model.points import mask_points_from_mask, scribble_points_from_mask

        height, width = mask.shape
        square = nearest_resize(mask, _PAPER_SCRIBBLE_SIZE)
        scribble = scribble_points_from_mask(square, NUM_SCRIBBLE_POINTS, rng=self._numpy)
        outline = mask_points_from_mask(mask, NUM_MASK_POINTS, rng=self._python)
        if outline is None:
            outline = np.zeros(2 * NUM_MASK_POINTS)
        x0, y0, x1, y1 = box_xyxy
        return InstancePoints(
            point_xy=((x0 + x1) / 2, (y0 + y1) / 2),
            scribble_xy=_paper_relative(scribble, width, height),
            mask_points_xy=_paper_relative(outline, width, height),
        )


def _paper_relative(flat: NDArray[np.float64], width: int, height: int) -> tuple[PointXY, ...]:
    from reference_model.points import relative_points

    return _as_tuples(relative_points(flat, width, height).reshape(-1, 2))


def nearest_resize(mask: BoolMask, size: int) -> BoolMask:
    """A mask [H, W] on a square of `size` pixels, sampled at pixel centres as PIL's NEAREST does."""
    height, width = mask.shape
    rows = (2 * np.arange(size) + 1) * height // (2 * size)
    columns = (2 * np.arange(size) + 1) * width // (2 * size)
    resized: BoolMask = mask[np.ix_(rows, columns)]
    return resized


def _crop(mask: BoolMask) -> tuple[BoolMask, int, int]:
    """The part of a mask that is not empty, and where it lies; drawing on it is much faster."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], left, top


def _placed(flat: NDArray[np.float64], left: int, top: int) -> NDArray[np.float64]:
    """Points of a crop [n, 2] in pixels of the image, ordered by distance to its top left corner."""
    points = flat.reshape(-1, 2) + np.array([left, top], dtype=np.float64)
    ordered: NDArray[np.float64] = points[np.argsort(np.hypot(points[:, 0], points[:, 1]), kind="stable")]
    return ordered


def _as_tuples(points: NDArray[np.float64]) -> tuple[PointXY, ...]:
    return tuple((float(x), float(y)) for x, y in points.tolist())


def _derived_seed(purpose: str, annotation_id: int, seed: int) -> int:
    digest = hashlib.sha256(f"instbench-points-v1\n{purpose}\n{annotation_id}\n{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
