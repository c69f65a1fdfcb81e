"""Average precision of resamples, from the matches of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from metrics.functional.match_table import AREAS, NUM_THRESHOLDS, MatchTable

__all__ = ["AP_NUMBERS", "ApSamples"]

AP_NUMBERS: dict[str, tuple[str, tuple[int, ...], int, int]] = {
    "ap": ("precision", tuple(range(NUM_THRESHOLDS)), 0, 100),
    "ap50": ("precision", (0,), 0, 100),
    "ap75": ("precision", (5,), 0, 100),
    **{
        f"ap_{area}": ("precision", tuple(range(NUM_THRESHOLDS)), AREAS.index(area), 100)
        for area in AREAS[1:]
    },
    **{f"ar{count}": ("recall", tuple(range(NUM_THRESHOLDS)), 0, count) for count in (1, 10, 100)},
    **{f"ar_{area}": ("recall", tuple(range(NUM_THRESHOLDS)), AREAS.index(area), 100) for area in AREAS[1:]},
}
"""COCOeval's numbers: precision or recall, IoU thresholds, area range, detections an image."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 250


@dataclass(frozen=True)
class ApSamples:
    """One of COCOeval's numbers by image.

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
        value = self.resampled(np.ones((1, self.num_images), dtype=np.float32))[0]
        return None if np.isnan(value) else float(value)

    def resampled(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """The number in each resample [B], over the categories that it holds."""
        parts = [
            self._chunk(np.ascontiguousarray(weights[start : start + _CHUNK].T, dtype=np.float64))
            for start in range(0, len(weights), _CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _chunk(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number for weights [N, B]."""
        kind, thresholds, area, limit = AP_NUMBERS[self.number]
        table = self.table
        total, present = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
        starts = np.searchsorted(table.categories, np.arange(table.num_categories + 1))
        for category in range(table.num_categories):
            mine = (table.truth_categories == category) & (table.truth_counts[area] > 0)
            objects = table.truth_counts[area, mine].astype(np.float64) @ columns[table.truth_images[mine]]
            if not mine.any():
                continue
            rows = np.arange(starts[category], starts[category + 1])
            rows = rows[table.ranks[rows] < limit]
            score = _precision if kind == "precision" else _recall
            values = np.zeros(columns.shape[1])
            for threshold in thresholds:
                bit = np.uint16(1 << threshold)
                kept = rows[(table.ignored[area, rows] & bit) == 0]
                hits = (table.matched[area, kept] & bit) != 0
                values += score(table.images[kept], hits, columns, objects)
            # A category without objects in a resample has no value there.
            counted = objects > 0
            total += np.where(counted, values / len(thresholds), 0.0)
            present += counted
        return np.divide(total, present, out=np.full(len(total), np.nan), where=present > 0)


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
    reached[true <= 0] = 0
    gained = np.diff(reached, axis=0, prepend=0)
    result: NDArray[np.float64] = (envelope * gained).sum(axis=0) / len(_RECALLS)
    return result
