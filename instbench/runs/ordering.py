"""The order of numbers and bins for people; files sort their keys by letter."""

from __future__ import annotations

import re
from typing import Any

from instbench.runs.records import ResultsRecord

__all__ = ["SLICES", "bin_order", "in_order"]

SLICES = ("category", "size", "instances_in_image", "overlap", "position", "asked_as")
"""Columns of ``instances.parquet`` that name the bins."""

_BINS = (
    *("small", "medium", "large"),
    *("none", "below 0.1", "0.1 to 0.5", "above 0.5"),
    *("centre", "edge", "corner"),
)


def bin_order(label: str) -> tuple[Any, ...]:
    """Sort key of a bin: from little to much where there is such an order, numbers in names by their size."""
    known = _BINS.index(label) if label in _BINS else len(_BINS)
    return known, [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label)]


def in_order(record: ResultsRecord) -> ResultsRecord:
    """Results with the numbers in the benchmark's order, the headline first, and bins as `bin_order` has them."""
    asked = [name for name in record.metrics_asked or () if name in record.metrics]
    names = dict.fromkeys([*asked, *record.metrics])
    slices = {
        number: {
            name: {label: bins[name][label] for label in sorted(bins[name], key=bin_order)}
            for name in sorted(bins, key=lambda one: SLICES.index(one) if one in SLICES else len(SLICES))
        }
        for number, bins in record.slices.items()
    }
    return record.model_copy(
        update={"metrics": {name: record.metrics[name] for name in names}, "slices": slices}
    )
