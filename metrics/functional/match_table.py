"""Who matched whom in COCO's evaluation, image by image: enough to compute AP again under any weights of the images.

Evaluating is expensive and depends on one image at a time; accumulating is cheap. A resample of images only changes
how often each image counts, so intervals need one evaluation and many accumulations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.functional.ap_engines import evaluated_images
from metrics.functional.average_precision import prepare_pair
from metrics.functional.coco_data import CocoSource, DetectionSource, load_ground_truth
from metrics.functional.detection_table import detection_table
from metrics.functional.regions import IouType

__all__ = ["AREAS", "NUM_THRESHOLDS", "MatchTable", "match_table"]


AREAS = ("all", "small", "medium", "large")
NUM_THRESHOLDS = 10
_AREA_ENDS = {1e10: 0, 32.0**2: 1, 96.0**2: 2}


@dataclass(frozen=True)
class MatchTable:
    """Matches of one evaluation. Detections are ordered by category, then by falling score (ties by image).

    Attributes:
        image_ids: int64 [N], the evaluated images, in order.
        num_categories: Number of categories K.
        images: int32 [D], position of each detection's image.
        categories: int32 [D], column of its category.
        ranks: int16 [D], its place among the detections of its image and category, from 0.
        matched: uint16 [4, D], bit t set where it is matched at the t-th IoU threshold, by area range.
        ignored: uint16 [4, D], bit t set where it is ignored, likewise.
        truth_images: int32 [G], positions of images with countable objects.
        truth_categories: int32 [G], columns of their categories.
        truth_counts: int32 [4, G], how many there are, by area range.
    """

    image_ids: NDArray[np.int64]
    num_categories: int
    images: NDArray[np.int32]
    categories: NDArray[np.int32]
    ranks: NDArray[np.int16]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    truth_images: NDArray[np.int32]
    truth_categories: NDArray[np.int32]
    truth_counts: NDArray[np.int32]


def match_table(gt: CocoSource, detections: DetectionSource, iou_type: IouType = "bbox") -> MatchTable:
    """Evaluates once and keeps the matches.

    Args:
        gt: COCO dictionary or file, as `coco_average_precision` takes it.
        detections: COCO results list or file.
        iou_type: ``"bbox"`` or ``"segm"``.

    Raises:
        ValueError: As `coco_average_precision`.
    """
    truth = load_ground_truth(gt)
    table = detection_table(detections, truth)
    pair = prepare_pair(truth, table, iou_type)
    category_ids = [one["id"] for one in pair.ground_truth["categories"]]
    image_ids = [one["id"] for one in pair.ground_truth["images"]]
    entries: Sequence[Mapping[str, Any] | None] = ()
    if image_ids and category_ids:
        entries = evaluated_images(pair, iou_type)
    return _collect(entries, image_ids, category_ids)


def _collect(
    entries: Sequence[Mapping[str, Any] | None], image_ids: Sequence[int], category_ids: Sequence[int]
) -> MatchTable:
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    column_of = {category_id: column for column, category_id in enumerate(sorted(category_ids))}
    cells: dict[tuple[int, int], list[Mapping[str, Any] | None]] = {}
    for entry in entries:
        if entry is not None:
            key = (column_of[entry["category_id"]], row_of[entry["image_id"]])
            cells.setdefault(key, [None] * len(AREAS))[_area(entry["aRng"])] = entry
    images: list[NDArray[np.int32]] = []
    categories, ranks, scores, matched, ignored = [], [], [], [], []
    truth: list[tuple[int, int, list[int]]] = []
    for (column, row), by_area in sorted(cells.items(), key=lambda item: item[0]):
        everything = by_area[0]
        if everything is None:
            continue
        count = len(everything["dtScores"])
        images.append(np.full(count, row, dtype=np.int32))
        categories.append(np.full(count, column, dtype=np.int32))
        ranks.append(np.arange(count, dtype=np.int16))
        scores.append(np.asarray(everything["dtScores"], dtype=np.float64).reshape(count))
        matched.append(np.stack([_bits(one, ("dtMatched", "dtMatches"), count) for one in by_area]))
        ignored.append(np.stack([_bits(one, ("dtIgnore",), count) for one in by_area]))
        counts = [
            0 if one is None else int(np.sum(~np.asarray(one["gtIgnore"], dtype=bool))) for one in by_area
        ]
        if any(counts):
            truth.append((row, column, counts))
    joined = [
        np.concatenate(part) if part else np.zeros(0, dtype=kind)
        for part, kind in (
            (images, np.int32),
            (categories, np.int32),
            (ranks, np.int16),
            (scores, np.float64),
        )
    ]
    bits = [
        np.concatenate(part, axis=1) if part else np.zeros((len(AREAS), 0), dtype=np.uint16)
        for part in (matched, ignored)
    ]
    # As COCOeval: stable by falling score within a category, images in their order.
    order = np.lexsort((np.arange(len(joined[0])), np.negative(joined[3]), joined[1]))
    return MatchTable(
        image_ids=np.asarray(image_ids, dtype=np.int64),
        num_categories=len(category_ids),
        images=joined[0][order].astype(np.int32),
        categories=joined[1][order].astype(np.int32),
        ranks=joined[2][order].astype(np.int16),
        matched=bits[0][:, order],
        ignored=bits[1][:, order],
        truth_images=np.asarray([one[0] for one in truth], dtype=np.int32),
        truth_categories=np.asarray([one[1] for one in truth], dtype=np.int32),
        truth_counts=np.asarray([one[2] for one in truth], dtype=np.int32).reshape(-1, len(AREAS)).T,
    )


def _area(limits: Sequence[float]) -> int:
    low, high = float(limits[0]), float(limits[1])
    return _AREA_ENDS[high] if low == 0 or high < 1e9 else 3


def _bits(entry: Mapping[str, Any] | None, names: Sequence[str], count: int) -> NDArray[np.uint16]:
    """One bit per IoU threshold."""
    if entry is None:
        return np.zeros(count, dtype=np.uint16)
    values = next(entry[name] for name in names if name in entry)
    flags = np.asarray(values, dtype=np.float64).reshape(NUM_THRESHOLDS, count) > 0
    powers = (1 << np.arange(NUM_THRESHOLDS)).astype(np.uint16)
    packed: NDArray[np.uint16] = (flags * powers[:, None]).sum(axis=0).astype(np.uint16)
    return packed
