"""Who matched whom in COCO's or LVIS's evaluation, image by image: enough for AP under any weights of the images.

Evaluating is expensive and depends on one image at a time; accumulating is cheap. A resample of images only changes
how often each image counts, so intervals need one evaluation and many accumulations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AREAS",
    "NUM_THRESHOLDS",
    "ImageMatches",
    "MatchTable",
    "coco_matches",
    "gather_matches",
    "pack_bits",
]

AREAS = ("all", "small", "medium", "large")
NUM_THRESHOLDS = 10
_AREA_ENDS = {1e10: 0, 32.0**2: 1, 96.0**2: 2}


@dataclass(frozen=True)
class MatchTable:
    """Matches of one evaluation. Detections are ordered by category, then by falling score (ties by image id).

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
        frequencies: str [K], "r", "c" or "f" by column, of LVIS; None in COCO.
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
    frequencies: NDArray[np.str_] | None = None


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """The detections of one category in one image, best first.

    Attributes:
        image_id: The image.
        category_id: The category.
        scores: float64 [D].
        matched: uint16 [4, D], as in `MatchTable`.
        ignored: uint16 [4, D].
        counts: How many objects count, by area range.
    """

    image_id: int
    category_id: int
    scores: NDArray[np.float64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    counts: Sequence[int]


def gather_matches(
    cells: Iterable[ImageMatches],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    frequencies: Sequence[str] | None = None,
) -> MatchTable:
    """Puts the matches of all images and categories into one table.

    Args:
        cells: At most one for each image and category.
        image_ids: The evaluated images, in the order of the table.
        category_ids: The categories; columns are in the order of ids.
        frequencies: LVIS's letter of each category in the order of ids.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    column_of = {category_id: column for column, category_id in enumerate(sorted(category_ids))}
    # Equal scores of a category stand in the order of image ids, as the evaluators sort.
    ordered = sorted(cells, key=lambda one: (one.category_id, one.image_id))
    lengths = [len(one.scores) for one in ordered]
    rows = np.array([row_of[one.image_id] for one in ordered], dtype=np.int32)
    columns = np.array([column_of[one.category_id] for one in ordered], dtype=np.int32)
    empty = np.zeros((len(AREAS), 0), dtype=np.uint16)
    scores = np.concatenate([np.zeros(0), *(one.scores for one in ordered)])
    categories = np.repeat(columns, lengths)
    order = np.lexsort((np.arange(len(scores)), np.negative(scores), categories))
    counts = np.array([one.counts for one in ordered], dtype=np.int32).reshape(-1, len(AREAS))
    counted = counts.any(axis=1)
    return MatchTable(
        image_ids=np.asarray(image_ids, dtype=np.int64),
        num_categories=len(category_ids),
        images=np.repeat(rows, lengths)[order],
        categories=categories[order],
        ranks=np.concatenate([np.zeros(0, dtype=np.int16), *(np.arange(n, dtype=np.int16) for n in lengths)])[
            order
        ],
        matched=np.concatenate([empty, *(one.matched for one in ordered)], axis=1)[:, order],
        ignored=np.concatenate([empty, *(one.ignored for one in ordered)], axis=1)[:, order],
        truth_images=rows[counted],
        truth_categories=columns[counted],
        truth_counts=counts[counted].T,
        frequencies=None if frequencies is None else np.asarray(frequencies, dtype=np.str_),
    )


def coco_matches(entries: Sequence[Mapping[str, Any] | None]) -> Iterator[ImageMatches]:
    """COCOeval's matches by image and category, area ranges together.

    Args:
        entries: ``COCOeval.evalImgs`` of pycocotools or hotcoco.
    """
    found: dict[tuple[int, int], list[Mapping[str, Any] | None]] = {}
    for entry in entries:
        if entry is not None:
            key = (entry["image_id"], entry["category_id"])
            found.setdefault(key, [None] * len(AREAS))[_area(entry["aRng"])] = entry
    for (image_id, category_id), by_area in found.items():
        everything = by_area[0]
        if everything is not None:
            scores = np.asarray(everything["dtScores"], dtype=np.float64).reshape(-1)
            yield ImageMatches(
                image_id,
                category_id,
                scores,
                np.stack([_bits(one, ("dtMatched", "dtMatches"), len(scores)) for one in by_area]),
                np.stack([_bits(one, ("dtIgnore",), len(scores)) for one in by_area]),
                [
                    0 if one is None else int(np.sum(~np.asarray(one["gtIgnore"], dtype=bool)))
                    for one in by_area
                ],
            )


def _area(limits: Sequence[float]) -> int:
    low, high = float(limits[0]), float(limits[1])
    return _AREA_ENDS[high] if low == 0 or high < 1e9 else 3


def _bits(entry: Mapping[str, Any] | None, names: Sequence[str], count: int) -> NDArray[np.uint16]:
    if entry is None:
        return np.zeros(count, dtype=np.uint16)
    values = next(entry[name] for name in names if name in entry)
    return pack_bits(np.asarray(values, dtype=np.float64).reshape(NUM_THRESHOLDS, count) > 0)


def pack_bits(flags: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """One bit per IoU threshold: bool [..., 10, D] to uint16 [..., D]."""
    powers = (1 << np.arange(NUM_THRESHOLDS)).astype(np.uint16)
    packed: NDArray[np.uint16] = (flags * powers[:, None]).sum(axis=-2).astype(np.uint16)
    return packed
