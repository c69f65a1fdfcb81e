"""Masks and boxes as COCO run lengths, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import Detection, ImageSize

__all__ = [
    "RLE",
    "IouType",
    "annotation_region",
    "detection_region",
    "pairwise_iou",
    "pixels_inside",
    "to_rle",
]

RLE: TypeAlias = dict[str, Any]
IouType: TypeAlias = Literal["bbox", "segm"]


def to_rle(segmentation: Any, height: int, width: int, where: str) -> RLE:
    """COCO segmentation (polygons, compressed or uncompressed run lengths) as compressed run lengths.

    Args:
        segmentation: As it stands in a COCO file.
        height: Image height in pixels.
        width: Image width in pixels.
        where: Name of the entry, for messages.

    Raises:
        ValueError: If the size differs from the image's, a polygon has fewer than 3 points, or the run
            lengths cannot be read.
    """
    if isinstance(segmentation, Mapping):
        size = [int(value) for value in segmentation.get("size", ())]
        if size != [height, width]:
            raise ValueError(f"{where}: mask size {size} is not the image size {[height, width]}; resize it")
        counts = segmentation.get("counts")
        if isinstance(counts, list):
            if sum(counts) != height * width:
                raise ValueError(
                    f"{where}: run lengths add up to {sum(counts)}, not {height * width}; redo them"
                )
            rle: RLE = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)
            return rle
        if not isinstance(counts, str | bytes):
            raise ValueError(f"{where}: mask has no counts; give run lengths or polygons")
        total = _covered_pixels(counts)
        if total != height * width:
            raise ValueError(
                f"{where}: run lengths are damaged or of another size (they cover {total} of "
                f"{height * width} pixels); write the mask again"
            )
        return {"size": size, "counts": counts}
    if not segmentation:
        raise ValueError(f"{where}: segmentation is empty; remove the entry or add a mask")
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(
                f"{where}: a polygon has {len(polygon)} numbers; at least 3 (x, y) points are needed"
            )
    merged: RLE = coco_mask.merge(coco_mask.frPyObjects(list(segmentation), height, width))
    return merged


def _covered_pixels(counts: str | bytes) -> int | None:
    """Sum of compressed run lengths; None if they are not well formed.

    pycocotools trusts its input: it loops for ever or reads foreign memory where the sum is wrong.
    """
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        return None
    # Six bits a character from "0" on: five of a two's-complement number, low ones first, and "goes on".
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return 0
    last = (codes & 0x20) == 0
    if codes.min() < 0 or codes.max() > 63 or not last[-1]:
        return None
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:
        return None
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 0x1F) << shifts, starts)
    runs -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    # From the fourth run on, each is stored as the difference to the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if runs.min() < 0 else int(runs.sum())


def _box_rle(box: Sequence[float], height: int, width: int) -> RLE:
    """The rectangle as pycocotools draws it for detections without a mask."""
    x, y, w, h = box
    polygon = [x, y, x, y + h, x + w, y + h, x + w, y]
    rle: RLE = coco_mask.frPyObjects([polygon], height, width)[0]
    return rle


def annotation_region(annotation: Mapping[str, Any], image: ImageSize) -> RLE | None:
    """The mask of an annotation, or None if it has none.

    Raises:
        ValueError: If the segmentation is malformed or the image size is unknown.
    """
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return None
    return to_rle(segmentation, *image.require(), where=f"annotation {annotation['id']}")


def detection_region(detection: Detection, image: ImageSize) -> RLE:
    """The mask of a detection; its filled box where it has no mask.

    Raises:
        ValueError: If the segmentation is malformed or the image size is unknown.
    """
    height, width = image.require()
    if detection.segmentation is not None:
        return to_rle(detection.segmentation, height, width, where=f"detections: entry {detection.index}")
    if detection.bbox is None:
        raise ValueError(f"detections: entry {detection.index}: has neither bbox nor segmentation; add one")
    return _box_rle(detection.bbox, height, width)


def pairwise_iou(rows: Sequence[Any], columns: Sequence[Any]) -> NDArray[np.float64]:
    """IoU of every row with every column.

    Args:
        rows: Boxes (x, y, width, height) or run lengths.
        columns: The same kind as `rows`.

    Returns:
        float64 [len(rows), len(columns)].
    """
    if not rows or not columns:
        return np.zeros((len(rows), len(columns)))
    if not isinstance(rows[0], Mapping):
        rows = np.asarray(rows, dtype=np.float64)  # type: ignore[assignment]
        columns = np.asarray(columns, dtype=np.float64)  # type: ignore[assignment]
    ious: NDArray[np.float64] = coco_mask.iou(rows, columns, [0] * len(columns))
    return ious


def pixels_inside(regions: Sequence[RLE], xs: NDArray[np.int64], ys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each pixel (column `xs`, row `ys`) lies in each mask.

    Args:
        regions: M masks of one size.
        xs: int64 [N], columns inside the image.
        ys: int64 [N], rows inside the image.

    Returns:
        bool [N, M].
    """
    if not regions or not len(xs):
        return np.zeros((len(xs), len(regions)), dtype=bool)
    # Unit squares against "crowd" masks: IoU is then the covered share of the square, without decoding.
    squares = np.stack([xs, ys, np.ones_like(xs), np.ones_like(xs)], axis=1).astype(np.float64)
    height, width = regions[0]["size"]
    pixels = coco_mask.frPyObjects(squares, height, width)
    inside: NDArray[np.bool_] = coco_mask.iou(pixels, list(regions), [1] * len(regions)) > 0.5
    return inside
