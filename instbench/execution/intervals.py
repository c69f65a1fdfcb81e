"""Intervals of the numbers of a run, added after scoring."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from instbench.runs.records import MetricRecord
from instbench.statistics.intervals import interval
from instbench.statistics.resampling import Resamples
from instbench.statistics.samples import Samples

__all__ = ["add_intervals"]

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-6


def add_intervals(
    metrics: Mapping[str, MetricRecord], samples: dict[str, Samples], resamples: Resamples
) -> None:
    """Fills ``ci95`` of every number whose samples are known.

    Samples that do not give the number itself back are dropped with a warning: an interval of something else is
    worse than none.

    Args:
        metrics: The numbers.
        samples: What they are made of, by metric.
        resamples: Resamples of the images.
    """
    for name, record in metrics.items():
        found = samples.get(name)
        if found is None:
            continue
        value = found.value()
        agree = value is not None and record.value is not None and abs(value - record.value) < _TOLERANCE
        if not agree:
            if record.value is not None:
                logger.warning("%s: samples give %s, not %s; no interval", name, value, record.value)
            del samples[name]
            continue
        record.ci95 = interval(found, resamples, fraction=record.unit == "fraction")
