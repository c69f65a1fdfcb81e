"""Average precision of resamples, from the matches of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from instbench.statistics.resampling import Resamples
from instbench.statistics.samples import equal_units
from metrics.functional.match_table import AREAS, NUM_THRESHOLDS, MatchTable

__all__ = ["AP_NUMBERS", "ApNumber", "ApSamples"]

_ALL = tuple(range(NUM_THRESHOLDS))
_LETTERS = dict(zip("sml", AREAS[1:], strict=True))


@dataclass(frozen=True, slots=True)
class ApNumber:
    """What an evaluator averages.

    Attributes:
        kind: "precision" or "recall".
        thresholds: Positions of the IoU thresholds.
        area: Area range.
        limit: Detections of an image and category that count.
        frequency: LVIS's letter of the categories that count; None for all.
    """

    kind: Literal["precision", "recall"]
    thresholds: tuple[int, ...] = _ALL
    area: str = "all"
    limit: int = 100
    frequency: str | None = None


_LVIS_LIMIT = 300
AP_NUMBERS: dict[str, ApNumber] = {
    "ap": ApNumber("precision"),
    "ap50": ApNumber("precision", (0,)),
    "ap75": ApNumber("precision", (5,)),
    **{f"ap_{area}": ApNumber("precision", area=area) for area in AREAS[1:]},
    **{f"ar{count}": ApNumber("recall", limit=count) for count in (1, 10, 100)},
    **{f"ar_{area}": ApNumber("recall", area=area) for area in AREAS[1:]},
    "AP": ApNumber("precision", limit=_LVIS_LIMIT),
    "AP50": ApNumber("precision", (0,), limit=_LVIS_LIMIT),
    "AP75": ApNumber("precision", (5,), limit=_LVIS_LIMIT),
    **{f"AP{one}": ApNumber("precision", area=area, limit=_LVIS_LIMIT) for one, area in _LETTERS.items()},
    **{f"AP{one}": ApNumber("precision", limit=_LVIS_LIMIT, frequency=one) for one in "rcf"},
    "AR@300": ApNumber("recall", limit=_LVIS_LIMIT),
    **{f"AR{one}@300": ApNumber("recall", area=area, limit=_LVIS_LIMIT) for one, area in _LETTERS.items()},
}
"""COCOeval's numbers in small letters, the LVIS API's in its own spelling."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 250


@dataclass(frozen=True)
class ApSamples:
    """One of COCOeval's or LVIS's numbers by image.

    Attributes:
        table: The matches.
        number: A key of `AP_NUMBERS`.
    """

    table: MatchTable
    number: str

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.table.image_ids)

    def value(self) -> float | None:
        """The number on the images as they are."""
        value = self.resampled(Resamples(np.ones((1, self.num_images), dtype=np.float32)))[0]
        return None if np.isnan(value) else float(value)

    def units(self) -> float:
        """Images of equal size that would tell as much; an image is as large as its shares of the objects."""
        asked, table = AP_NUMBERS[self.number], self.table
        counts = table.truth_counts[AREAS.index(asked.area)].astype(np.float64)
        if asked.frequency is not None and table.frequencies is not None:
            counts = counts * (table.frequencies[table.truth_categories] == asked.frequency)
        totals = np.bincount(table.truth_categories, weights=counts, minlength=table.num_categories)
        shares = counts / np.maximum(totals[table.truth_categories], 1.0)
        sizes: NDArray[np.float64] = np.zeros(self.num_images)
        np.add.at(sizes, table.truth_images, shares)  # of all categories together, each as much as another
        return equal_units(sizes)

    def resampled(self, resamples: Resamples) -> NDArray[np.float64]:
        """The number in each resample [B], over the categories that it holds."""
        asked, table = AP_NUMBERS[self.number], self.table
        # AP averages what AP50 and AP75 are, and APr, APc and APf are parts of it; so what was summed is kept.
        key = ("ap", id(table), asked.kind, asked.area, asked.limit)
        _, present, totals = resamples.memo.setdefault(key, (table, {}, {}))
        missing = [one for one in asked.thresholds if one not in totals]
        if missing:
            _add_sums(table, asked, missing, resamples.weights, present, totals)
        groups = [one for one in present if asked.frequency in (None, one)]
        empty = np.zeros(len(resamples.weights))
        total = sum((totals[at][one] for at in asked.thresholds for one in groups), empty)
        count = sum((present[one] for one in groups), empty)
        return np.divide(
            total, count * len(asked.thresholds), out=np.full(len(count), np.nan), where=count > 0
        )


def _add_sums(
    table: MatchTable,
    asked: ApNumber,
    thresholds: Sequence[int],
    weights: NDArray[np.float32],
    present: dict[str, NDArray[np.float64]],
    totals: dict[int, dict[str, NDArray[np.float64]]],
) -> None:
    """Sums precision or recall over the categories of each frequency, and counts the categories that are there.

    Args:
        table: The matches.
        asked: Kind, area range and limit.
        thresholds: Positions of the IoU thresholds to sum at.
        weights: float32 [B, N].
        present: Gets how many categories each resample holds, by frequency ("" in COCO), [B] each.
        totals: Gets their sums, by threshold and frequency, [B] each.
    """
    score = _precision if asked.kind == "precision" else _recall
    area = AREAS.index(asked.area)
    letters = [""] * table.num_categories if table.frequencies is None else table.frequencies.tolist()
    present |= {letter: np.zeros(len(weights)) for letter in letters}
    totals |= {at: {letter: np.zeros(len(weights)) for letter in letters} for at in thresholds}
    starts = np.searchsorted(table.categories, np.arange(table.num_categories + 1))
    for start in range(0, len(weights), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        columns = np.ascontiguousarray(weights[chunk].T, dtype=np.float64)
        for category, letter in enumerate(letters):
            mine = (table.truth_categories == category) & (table.truth_counts[area] > 0)
            if not mine.any():
                continue
            objects = table.truth_counts[area, mine].astype(np.float64) @ columns[table.truth_images[mine]]
            counted = objects > 0  # a category without objects in a resample has no value there
            present[letter][chunk] += counted
            rows = np.arange(starts[category], starts[category + 1])
            rows = rows[table.ranks[rows] < asked.limit]
            for at in thresholds:
                bit = np.uint16(1 << at)
                kept = rows[(table.ignored[area, rows] & bit) == 0]
                hits = (table.matched[area, kept] & bit) != 0
                values = score(table.images[kept], hits, columns, objects)
                totals[at][letter][chunk] += np.where(counted, values, 0.0)


def _recall(
    images: NDArray[np.int32],
    hits: NDArray[np.bool_],
    columns: NDArray[np.float64],
    objects: NDArray[np.float64],
) -> NDArray[np.float64]:
    found = np.bincount(images[hits], minlength=len(columns)) @ columns
    result: NDArray[np.float64] = np.divide(found, objects, out=np.zeros_like(objects), where=objects > 0)
    return result


def _precision(
    images: NDArray[np.int32],
    hits: NDArray[np.bool_],
    columns: NDArray[np.float64],
    objects: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean of the interpolated precision at 101 recalls.

    Precision matters at the true positives alone: between two of them it only falls. So the false positives
    before each are summed, per image, as one sparse product.
    """
    positions = np.flatnonzero(hits)
    if not len(positions):
        return np.zeros(columns.shape[1])
    misses = np.flatnonzero(~hits[: positions[-1]])
    segments = np.searchsorted(positions, misses)
    counts = csr_matrix(
        (np.ones(len(misses)), (segments, images[misses])), shape=(len(positions), len(columns))
    )
    true = np.cumsum(columns[images[positions]], axis=0)
    false = np.cumsum(counts @ columns, axis=0)
    total = true + false
    precision = np.divide(true, total, out=np.zeros_like(true), where=total > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = np.divide(true, objects, out=np.zeros_like(true), where=objects > 0)
    # How many of the recalls are reached; COCOeval's own grid decides, as 0.35 falls short of its 35th point.
    nearest = np.rint(recall * (len(_RECALLS) - 1)).astype(np.int64)
    reached = nearest + (_RECALLS[nearest] <= recall)
    gained = np.diff(reached, axis=0, prepend=0)
    result: NDArray[np.float64] = (envelope * gained).sum(axis=0) / len(_RECALLS)
    return result
