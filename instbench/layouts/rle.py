"""Binary masks as COCO run lengths: encode, decode, read from annotations, resize.

Run lengths count pixels in column-major order, starting with the background, as pycocotools does.
Encodings read from files are checked before they are decoded: their runs must add up to the size of
the mask, so that a bad file can neither crash the decoder nor make it allocate without bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from instbench.errors import InputError
from instbench.layouts.types import MaskRLE

__all__ = [
    "MAX_SIDE",
    "area",
    "check",
    "check_polygons",
    "decode",
    "encode",
    "nearest",
    "from_coco_segmentation",
    "resize",
    "run_lengths",
    "to_coco",
    "usable_polygons",
]

MAX_SIDE = 16_384
"""Largest height or width of a mask in pixels; larger ones are refused."""

_MAX_CHARACTERS = 7  # of one run: 5 bits each, more than any 32-bit length needs


def encode(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> MaskRLE:
    """Encodes a mask.

    Args:
        mask: bool or 0/1 integers [H, W].

    Returns:
        The encoding, H x W.

    Raises:
        InputError: If the array is not two-dimensional.
    """
    if mask.ndim != 2:
        raise InputError(f"mask: expected an array [height, width], got shape {mask.shape}")
    height, width = (int(side) for side in mask.shape)
    if mask.size == 0:
        raise InputError(f"mask: height and width must be at least 1, got {height} x {width}")
    encoded = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return MaskRLE(height=height, width=width, counts=encoded["counts"].decode("ascii"))


def run_lengths(counts: str) -> list[int]:
    """Run lengths behind a compressed COCO counts string.

    Args:
        counts: Compressed counts.

    Returns:
        Lengths in pixels, background first.

    Raises:
        InputError: If the text is no counts string.
    """
    runs: list[int] = []
    value = shift = 0
    pending = False
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift >= 5 * _MAX_CHARACTERS:
            raise InputError("mask: counts is not a COCO run-length string; export the masks again")
        value |= (code & 0x1F) << shift
        shift += 5
        pending = bool(code & 0x20)
        if pending:
            continue
        if code & 0x10:
            value -= 1 << shift
        if len(runs) > 2:  # later runs are stored as differences
            value += runs[-2]
        if value < 0:
            raise InputError("mask: counts holds a negative run length; export the masks again")
        runs.append(value)
        value = shift = 0
    if pending:
        raise InputError("mask: counts ends in the middle of a run length; the text is truncated")
    return runs


def check(rle: MaskRLE) -> None:
    """Checks an encoding without decoding it.

    Args:
        rle: The encoding.

    Raises:
        InputError: If a side is out of range or the runs do not add up to height x width.
    """
    _checked_runs(rle)


def _checked_runs(rle: MaskRLE) -> list[int]:
    if not (0 < rle.height <= MAX_SIDE and 0 < rle.width <= MAX_SIDE):
        raise InputError(f"mask: size {rle.width}x{rle.height} is not between 1 and {MAX_SIDE} pixels a side")
    runs = run_lengths(rle.counts)
    _check_total(sum(runs), rle.height, rle.width)
    return runs


def decode(rle: MaskRLE) -> NDArray[np.bool_]:
    """Decodes a mask.

    Args:
        rle: The encoding.

    Returns:
        bool [H, W].

    Raises:
        InputError: If a side is out of range or the runs do not add up to height x width.
    """
    runs = np.asarray(_checked_runs(rle), dtype=np.int64)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(rle.width, rle.height).T)


def area(rle: MaskRLE) -> int:
    """Number of pixels of a mask."""
    return int(sum(run_lengths(rle.counts)[1::2]))


def to_coco(rle: MaskRLE) -> dict[str, Any]:
    """The COCO dict of a mask: ``{"size": [height, width], "counts": text}``."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def usable_polygons(polygons: Sequence[Sequence[float]]) -> list[list[float]]:
    """Parts of a polygon segmentation with at least three points."""
    return [[float(value) for value in part] for part in polygons if len(part) >= 6]


def from_coco_segmentation(segmentation: Any, height: int, width: int) -> MaskRLE:
    """Reads the ``segmentation`` field of a COCO annotation.

    Args:
        segmentation: Polygons (flat lists x0, y0, x1, y1, ... in pixels, parts united), uncompressed run
            lengths or compressed run lengths. Parts with fewer than three points cover nothing.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The mask; possibly empty.

    Raises:
        InputError: If the field is malformed or does not fit the image; the message says what is
            wrong, callers add file and id.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InputError(f"image size {width}x{height} is not between 1 and {MAX_SIDE} pixels a side")
    if isinstance(segmentation, Mapping):
        return _from_run_lengths(segmentation, height, width)
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    raise InputError(f"segmentation must be polygons or run lengths, not {type(segmentation).__name__}")


def check_polygons(polygons: Sequence[Any], height: int, width: int) -> None:
    """Checks polygon parts without drawing them.

    Args:
        polygons: Flat lists x0, y0, x1, y1, ... in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        InputError: If a part is no flat list of finite number pairs near the image.
    """
    for position, part in enumerate(polygons):
        _check_polygon(part, position, height, width)


def resize(rle: MaskRLE, height: int, width: int) -> MaskRLE:
    """Resizes a mask to another grid by the nearest pixel.

    Target pixel ``j`` of ``n`` shows the source pixel below its centre, ``floor((j + 0.5) * N / n)``,
    exactly (integer arithmetic). The aspect ratio may change.

    Args:
        rle: The mask.
        height: Target height in pixels.
        width: Target width in pixels.

    Returns:
        The mask at height x width. A thin mask may vanish.

    Raises:
        InputError: If a target side is not positive.
    """
    if height < 1 or width < 1:
        raise InputError(f"mask: cannot resize to {width}x{height}; sides must be positive")
    if (height, width) == (rle.height, rle.width):
        return rle
    return encode(nearest(decode(rle), height, width))


def nearest(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Resizes a decoded mask, as `resize` does an encoded one.

    Args:
        mask: bool [H, W].
        height: Target height in pixels.
        width: Target width in pixels.

    Returns:
        bool [height, width].
    """
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[np.ix_(rows, columns)]


def _check_total(total: int, height: int, width: int) -> None:
    if total != height * width:
        raise InputError(
            f"mask: run lengths cover {total} pixels but the size {width}x{height} has {height * width}; "
            "export the masks again"
        )


def _from_run_lengths(segmentation: Mapping[str, Any], height: int, width: int) -> MaskRLE:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        shown = repr(size)[:60]
        raise InputError(
            f"segmentation.size is {shown}, but the image is [{height}, {width}] (height, width); "
            "export the masks at the size of the image"
        )
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    if isinstance(counts, str):
        _check_total(sum(run_lengths(counts)), height, width)
        return MaskRLE(height=height, width=width, counts=counts)
    pixels = height * width
    if not isinstance(counts, list) or not all(type(run) is int and 0 <= run <= pixels for run in counts):
        raise InputError(
            f"segmentation.counts must be a run-length string or a list of lengths from 0 to {pixels}"
        )
    _check_total(sum(counts), height, width)
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return MaskRLE(height=height, width=width, counts=encoded["counts"].decode("ascii"))


def _from_polygons(polygons: list[Any], height: int, width: int) -> MaskRLE:
    check_polygons(polygons, height, width)
    usable = usable_polygons(polygons)
    if not usable:
        return encode(np.zeros((height, width), dtype=np.bool_))
    merged = coco_mask.merge(coco_mask.frPyObjects(usable, height, width))
    return MaskRLE(height=height, width=width, counts=merged["counts"].decode("ascii"))


def _check_polygon(part: Any, position: int, height: int, width: int) -> None:
    where = f"segmentation[{position}]"
    if not isinstance(part, list) or not set(map(type, part)) <= {int, float}:
        raise InputError(f"{where} must be a flat list of numbers x0, y0, x1, y1, ...")
    if len(part) % 2:
        raise InputError(f"{where} has {len(part)} numbers; x and y must come in pairs")
    if not _are_finite(part):
        raise InputError(f"{where} holds NaN or infinity; write finite numbers")
    # The rasteriser walks along every edge: far-off points would cost time and memory without bound.
    for values, side, axis in ((part[0::2], width, "x"), (part[1::2], height, "y")):
        if values and (min(values) < -side or max(values) > 2 * side):
            raise InputError(
                f"{where}: {axis} = {min(values)}..{max(values)} lies outside the image (0..{side}); clip it"
            )


def _are_finite(values: list[float]) -> bool:
    try:
        # NaN and infinity stay in a sum; one that only overflows is looked at value by value.
        return math.isfinite(sum(values)) or all(map(math.isfinite, values))
    except OverflowError:  # an integer that no float holds
        return False
