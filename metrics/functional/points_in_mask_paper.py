"""Points in mask as the published InstanceDiffusion evaluation computes it (paper edition).

Source: the behaviour of ``eval/eval_pim.py`` of the InstanceDiffusion release (commit 722900e), re-implemented
on run lengths. Differences from the strict edition, all kept on purpose:

* ground-truth masks, crowds included, take greedily in file order the unused predicted mask of highest IoU,
  whatever its category or confidence, even at IoU 0;
* the point is the integer centre of the mask's own bounding box, which may lie outside the mask;
* scribble points are 20 pixels drawn anew from the ground-truth mask, not the scribble of the generator;
* masks that are left over and images without predictions are dropped, and the mean is a mean of image means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import Detection, GroundTruth, ImageSize
from metrics.functional.regions import RLE, annotation_regions, detection_regions, pairwise_iou, pixels_inside

__all__ = ["NumpyRandom", "PaperRow", "paper_points_in_mask"]

NumpyRandom: TypeAlias = np.random.RandomState | np.random.Generator | int | None
PaperRow: TypeAlias = tuple[int, int, int, float | None, int | None, float | None, str | None]

_SCRIBBLE_POINTS = 20

UNMATCHED = "no predicted mask left"
EMPTY_MASK = "the mask is empty"
ORIGIN_ONLY = "all drawn points are the corner pixel (0, 0)"


def paper_points_in_mask(
    gt: GroundTruth, detections: Mapping[int, Sequence[Detection]], kind: str, rng: NumpyRandom
) -> Iterator[PaperRow]:
    """Score every annotation of the images in `detections`.

    Args:
        gt: Ground truth; every annotation needs a mask.
        detections: Detections by image id; boxes stand in for missing masks.
        kind: ``"point"`` or ``"scribble"``.
        rng: See `metrics.functional.points_in_mask.points_in_mask`.

    Yields:
        (image id, annotation id, category id, value, detection index, score, reason) in file order.

    Raises:
        ValueError: If an annotation has no mask.
    """
    choice = _chooser(rng)
    for image_id, in_image in detections.items():
        image = gt.images[image_id]
        annotations = gt.annotations[image_id]
        masks = _masks(annotations, image)
        predicted = detection_regions(in_image, image) if masks else []
        extents = coco_mask.toBbox(list(masks)) if masks else np.zeros((0, 4))
        columns = _greedy(masks, predicted, extents)
        asked = [_Asked(None, None, UNMATCHED)] * len(masks)
        for index, column in enumerate(columns):
            if column >= 0:
                asked[index] = _asked(masks[index], extents[index], kind, choice)
        values = iter(
            _shares(
                [(one, predicted[c]) for one, c in zip(asked, columns, strict=True) if one.xs is not None]
            )
        )
        for annotation, one, column in zip(annotations, asked, columns, strict=True):
            matched = in_image[column] if column >= 0 else None
            yield (
                image_id,
                annotation["id"],
                annotation["category_id"],
                None if one.xs is None else next(values),
                matched.index if matched else None,
                matched.score if matched else None,
                one.reason,
            )


def _chooser(rng: NumpyRandom) -> Any:
    """`choice` of the random source that is asked for."""
    if rng is None:
        return np.random.choice
    if isinstance(rng, int | np.integer):
        rng = np.random.RandomState(int(rng))
    return rng.choice


def _masks(annotations: Sequence[Mapping[str, Any]], image: ImageSize) -> list[RLE]:
    masks: list[RLE] = []
    for annotation, region in zip(annotations, annotation_regions(annotations, image), strict=True):
        if region is None:
            raise ValueError(
                f"annotation {annotation['id']}: has no segmentation; the paper edition needs masks"
            )
        masks.append(region)
    return masks


def _greedy(masks: Sequence[RLE], predicted: Sequence[RLE], extents: NDArray[np.float64]) -> list[int]:
    """Predicted mask of each mask, or -1; `extents` are the bounding boxes of the masks."""
    ious = pairwise_iou(masks, predicted)
    if ious.size:
        # 0/0 is no number for the published script and never chosen; pycocotools calls it 0.
        empty_rows = extents[:, 2] == 0
        if empty_rows.any():
            empty_columns = coco_mask.area(list(predicted)) == 0
            ious[np.ix_(empty_rows, empty_columns)] = -1.0
    chosen: list[int] = []
    for row in ious:
        column = int(np.argmax(row)) if row.size else -1
        if column >= 0 and row[column] >= 0:
            ious[:, column] = -1.0
            chosen.append(column)
        else:
            chosen.append(-1)
    return chosen


class _Asked(NamedTuple):
    """The pixels that a mask asks for, or why it asks for none."""

    xs: NDArray[np.int64] | None
    ys: NDArray[np.int64] | None
    reason: str | None


def _asked(mask: RLE, extent: NDArray[np.float64], kind: str, choice: Any) -> _Asked:
    if kind == "point":
        x, y, width, height = (int(value) for value in extent)
        if width == 0 or height == 0:
            return _Asked(None, None, EMPTY_MASK)
        # The last column is x + width - 1; halves are cut off.
        centre_x, centre_y = (2 * x + width - 1) // 2, (2 * y + height - 1) // 2
        return _Asked(np.array([centre_x]), np.array([centre_y]), None)
    ys, xs = _draw(mask, choice)
    if len(xs) == 0:
        return _Asked(None, None, EMPTY_MASK)
    if not xs.any() and not ys.any():
        return _Asked(None, None, ORIGIN_ONLY)
    return _Asked(xs, ys, None)


def _shares(pairs: Sequence[tuple[_Asked, RLE]]) -> list[float]:
    """Share of each one's pixels inside its own predicted mask."""
    points = [(one.xs, one.ys) for one, _ in pairs if one.xs is not None and one.ys is not None]
    if not points:
        return []
    xs, ys = (np.concatenate(parts) for parts in zip(*points, strict=True))
    inside = pixels_inside([predicted for _, predicted in pairs], xs, ys)
    ends = np.cumsum([len(part) for part, _ in points])
    return [
        float(np.mean(inside[end - len(part) : end, column]))
        for column, (end, (part, _)) in enumerate(zip(ends.tolist(), points, strict=True))
    ]


def _draw(mask: RLE, choice: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the drawn scribble pixels; one draw in row-major order of the mask's pixels."""
    ys, xs = np.nonzero(coco_mask.decode(mask))
    if len(xs) == 0:
        return ys, xs
    drawn = choice(len(xs), _SCRIBBLE_POINTS, replace=len(xs) < _SCRIBBLE_POINTS)
    return ys[drawn], xs[drawn]
