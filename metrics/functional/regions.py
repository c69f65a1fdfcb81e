"""Masks and boxes as COCO run lengths, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import Detection, ImageSize

__all__ = [
    "RLE",
    "IouType",
    "annotation_region",
    "annotation_regions",
    "box_rle",
    "detection_regions",
    "pairwise_iou",
    "pixels_inside",
    "to_rle",
    "to_rles",
    "union",
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
        total = int(_covered_pixels([counts])[0])
        if total != height * width:
            raise ValueError(
                f"{where}: run lengths are damaged or of another size (they cover {max(total, 0)} of "
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


_LONGEST_NUMBER = 7  # characters of a run length, far more than any image needs


def _covered_pixels(texts: Sequence[str | bytes]) -> NDArray[np.int64]:
    """Sums of compressed run lengths, int64 [N]; -1 where they are not well formed.

    pycocotools trusts its input: it loops for ever or reads foreign memory where the sum is wrong.
    """
    parts: list[bytes] = []
    for text in texts:
        try:
            parts.append(text.encode("ascii") if isinstance(text, str) else text)
        except UnicodeEncodeError:
            parts.append(b"\x00")  # outside the alphabet
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    total = np.zeros(len(parts), dtype=np.int64)
    # Six bits a character from "0" on: five of a two's-complement number, low ones first, and "goes on". Bytes
    # below "0" wrap around and are too large as well.
    codes = np.frombuffer(b"".join(parts), dtype=np.uint8) - np.uint8(48)
    if codes.size == 0:
        return total
    bad = np.zeros(len(parts), dtype=bool)
    borders = np.cumsum(sizes)
    if codes.max() > 63:
        bad[np.searchsorted(borders, np.flatnonzero(codes > 63), side="right")] = True
    last = (codes & 0x20) == 0
    filled = np.flatnonzero(sizes)
    final = borders[filled] - 1
    bad[filled[~last[final]]] = True
    last[final] = True  # numbers end with their mask, so that a damaged one stays alone
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    run_owner = np.repeat(filled, np.diff(np.searchsorted(ends, final), prepend=-1))
    if lengths.max() > _LONGEST_NUMBER:
        bad[run_owner[lengths > _LONGEST_NUMBER]] = True
        lengths = np.minimum(lengths, _LONGEST_NUMBER)
    low = codes & 0x1F
    runs = low[starts].astype(np.int64)
    for digit in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > digit)
        runs[longer] += low[starts[longer] + digit].astype(np.int64) << (5 * digit)
    negative = np.flatnonzero(codes[ends] & 0x10)
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    if bad.any():
        runs[bad[run_owner]] = 0
    # From the fourth run on, each is stored as the difference to the one before the last: so every other run of
    # a mask is a running sum. The first run of a mask is a number of its own.
    first = np.concatenate(([True], run_owner[1:] != run_owner[:-1]))
    heads = np.flatnonzero(first)
    place = np.arange(runs.size) - np.repeat(heads, np.diff(heads, append=runs.size))
    values = runs
    odd = (place & 1).astype(bool)
    for chosen in (np.flatnonzero(odd), np.flatnonzero(~odd & ~first)):
        if chosen.size:
            values[chosen] = _running_sums(runs[chosen], run_owner[chosen])
    if values.min() < 0:
        bad[run_owner[values < 0]] = True
    total[run_owner[heads]] = np.add.reduceat(values, heads)
    total[bad] = -1
    return total


def _running_sums(values: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cumulative sums that start anew with each group; groups are contiguous."""
    sums = np.cumsum(values)
    first = np.concatenate(([True], groups[1:] != groups[:-1]))
    before = np.where(first, sums - values, 0)
    offsets = before[first][np.cumsum(first) - 1]
    result: NDArray[np.int64] = sums - offsets
    return result


def to_rles(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]], where: Callable[[int], str]
) -> list[RLE]:
    """Many segmentations at once, see `to_rle`; compressed run lengths are checked together.

    Args:
        segmentations: As they stand in a COCO file.
        sizes: (height, width) of each one's image in pixels.
        where: Name of the entry at a position, for messages.

    Raises:
        ValueError: As `to_rle`, for the first entry that is malformed.
    """
    results: list[RLE | None] = [None] * len(segmentations)
    quick: list[int] = []
    for position, (segmentation, (height, width)) in enumerate(zip(segmentations, sizes, strict=True)):
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), str | bytes):
            size = segmentation.get("size")
            if size is not None and list(size) == [height, width]:
                quick.append(position)
    covered = _covered_pixels([segmentations[position]["counts"] for position in quick])
    for position, pixels in zip(quick, covered.tolist(), strict=True):
        height, width = sizes[position]
        if pixels == height * width:
            results[position] = {"size": [height, width], "counts": segmentations[position]["counts"]}
    return [
        to_rle(segmentations[position], *sizes[position], where=where(position)) if known is None else known
        for position, known in enumerate(results)
    ]


def box_rle(box: Sequence[float], height: int, width: int) -> RLE:
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


def annotation_regions(annotations: Sequence[Mapping[str, Any]], image: ImageSize) -> list[RLE | None]:
    """The masks of annotations of one image, None where one has none; errors as `annotation_region`."""
    masked = [index for index, one in enumerate(annotations) if one.get("segmentation")]
    regions: list[RLE | None] = [None] * len(annotations)
    if not masked:
        return regions
    rles = to_rles(
        [annotations[index]["segmentation"] for index in masked],
        [image.require()] * len(masked),
        lambda position: f"annotation {annotations[masked[position]]['id']}",
    )
    for index, rle in zip(masked, rles, strict=True):
        regions[index] = rle
    return regions


def detection_regions(detections: Sequence[Detection], image: ImageSize) -> list[RLE]:
    """The masks of detections in one image; the filled box of one that has no mask.

    Raises:
        ValueError: If a segmentation is malformed or the image size is unknown.
    """
    if not detections:
        return []
    height, width = image.require()
    masked = [index for index, one in enumerate(detections) if one.segmentation is not None]
    rles = to_rles(
        [detections[index].segmentation for index in masked],
        [(height, width)] * len(masked),
        lambda position: f"detections: entry {detections[masked[position]].index}",
    )
    regions: list[RLE | None] = [None] * len(detections)
    for index, rle in zip(masked, rles, strict=True):
        regions[index] = rle
    return [
        _boxed(one, height, width) if region is None else region
        for one, region in zip(detections, regions, strict=True)
    ]


def _boxed(detection: Detection, height: int, width: int) -> RLE:
    if detection.bbox is None:
        raise ValueError(f"detections: entry {detection.index}: has neither bbox nor segmentation; add one")
    return box_rle(detection.bbox, height, width)


def union(first: Any, second: Any) -> Any:
    """Two masks together; of two boxes (x, y, width, height) the smallest box around both."""
    if isinstance(first, Mapping):
        merged: RLE = coco_mask.merge([first, second])
        return merged
    x0, y0 = min(first[0], second[0]), min(first[1], second[1])
    x1 = max(first[0] + first[2], second[0] + second[2])
    y1 = max(first[1] + first[3], second[1] + second[3])
    return (x0, y0, x1 - x0, y1 - y0)


def pairwise_iou(rows: Sequence[Any], columns: Sequence[Any], *, crowd: bool = False) -> NDArray[np.float64]:
    """IoU of every row with every column.

    Args:
        rows: Boxes (x, y, width, height) or run lengths.
        columns: The same kind as `rows`.
        crowd: Take the share of the row that the column covers instead.

    Returns:
        float64 [len(rows), len(columns)].
    """
    if not rows or not columns:
        return np.zeros((len(rows), len(columns)))
    if not isinstance(rows[0], Mapping):
        rows = np.asarray(rows, dtype=np.float64)  # type: ignore[assignment]
        columns = np.asarray(columns, dtype=np.float64)  # type: ignore[assignment]
    ious: NDArray[np.float64] = coco_mask.iou(rows, columns, [int(crowd)] * len(columns))
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
