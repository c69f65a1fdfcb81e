"""Intervals of the numbers of a run, added after scoring."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from instbench.runs.records import MetricRecord
from instbench.statistics.intervals import interval
from instbench.statistics.resampling import resample_weights
from instbench.statistics.samples import Samples

__all__ = ["add_intervals", "run_weights"]

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-6


def run_weights(image_keys: Sequence[str]) -> NDArray[np.float32]:
    """The resamples of a run; they depend on the number of images alone."""
    return resample_weights(len(image_keys))


def add_intervals(
    metrics: Mapping[str, MetricRecord], samples: dict[str, Samples], weights: NDArray[np.float32]
) -> None:
    """Fills ``ci95`` of every number whose samples are known.

    Samples that do not give the number itself back are dropped with a warning: an interval of something else is
    worse than none.

    Args:
        metrics: The numbers.
        samples: What they are made of, by metric.
        weights: From `run_weights`.
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
        record.ci95 = interval(found, weights, fraction=record.unit == "fraction")
