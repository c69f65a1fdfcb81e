"""Intervals of one number, and of the difference of two on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from instbench.statistics.resampling import Resamples, draw_resamples
from instbench.statistics.samples import InfluenceSamples, RatioSamples, Samples

__all__ = ["PairedDifference", "holm", "interval", "paired_difference", "wilson_interval"]

LEVEL = 0.95
_FEWEST = 2


def wilson_interval(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share of independent units.

    Args:
        share: The share, in [0, 1].
        count: Number of units, at least 1.
        level: Confidence.
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(
    samples: Samples,
    resamples: Resamples | None = None,
    *,
    fraction: bool = True,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Interval over images.

    Percentiles of the bootstrap; for distances (`InfluenceSamples`) the number plus and minus its standard error
    times Student's quantile. A fraction that is the same in every image (all hit, all missed) has no spread to
    resample; it gets Wilson's interval over the images.

    Args:
        samples: The number by image.
        resamples: From `draw_resamples`; None draws them.
        fraction: Whether the number lies in [0, 1].
        level: Confidence.

    Returns:
        Lower and upper end; None where there is no number or fewer than two images behind it.
    """
    value = samples.value()
    behind = _images_behind(samples)
    if value is None or behind < _FEWEST:
        return None
    if isinstance(samples, InfluenceSamples):
        error = float(np.sqrt(np.square(samples.influences).sum() / (behind - 1) / behind))
        reach = float(stats.t.ppf((1 + level) / 2, behind - 1)) * error
        return value - reach, value + reach
    resampled = (resamples or draw_resamples(samples.num_images)).of(samples)
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) < _FEWEST:
        return None
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    if fraction and high - low < 1e-12 and (value < 1e-9 or value > 1 - 1e-9):
        return wilson_interval(min(1.0, max(0.0, value)), behind, level)
    # The number itself always lies in its interval, rare resamples or not.
    return min(float(low), value), max(float(high), value)


def _images_behind(samples: Samples) -> int:
    return int((samples.counts > 0).sum()) if isinstance(samples, RatioSamples) else samples.num_images


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Second minus first, on the same images.

    Attributes:
        value: The difference.
        ci95: Its interval.
        p_value: Two-sided, of no difference.
    """

    value: float
    ci95: tuple[float, float]
    p_value: float


def paired_difference(
    first: Samples, second: Samples, resamples: Resamples | None = None, level: float = LEVEL
) -> PairedDifference | None:
    """Compares two runs on the same layouts and seeds.

    Both are resampled alike. Interval and p value come from the spread of the differences and Student's
    distribution over the images, so that they agree: the interval leaves out 0 exactly where p is below 0.05. Where
    every resample gives the same difference, p is that of the sign test.

    Args:
        first: The baseline.
        second: The other run, images in the same order.
        resamples: From `draw_resamples`; None draws them.
        level: Confidence.

    Returns:
        The difference; None where one has no number.

    Raises:
        ValueError: If the numbers of images differ.
    """
    if first.num_images != second.num_images:
        raise ValueError(
            f"{first.num_images} images against {second.num_images}; compare runs of the same layouts"
        )
    before, after = first.value(), second.value()
    count = min(_images_behind(first), _images_behind(second))
    if before is None or after is None or count < _FEWEST:
        return None
    value = after - before
    resamples = resamples or draw_resamples(first.num_images)
    spread = resamples.of(second) - resamples.of(first)
    spread = spread[np.isfinite(spread)]
    error = float(np.std(spread, ddof=1)) if len(spread) >= _FEWEST else 0.0
    # The bootstrap of N images has the spread of N, not of N - 1.
    error *= math.sqrt(count / (count - 1))
    if error < 1e-12:
        same = abs(value) < 1e-12
        return PairedDifference(value, (value, value), 1.0 if same else min(1.0, 2 * 0.5**count))
    reach = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(value) / error, count - 1))
    return PairedDifference(value, (value - reach, value + reach), min(1.0, p_value))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; None stays None and does not count.

    Args:
        p_values: P values of one family of tests.

    Returns:
        Adjusted p values in the same order.
    """
    known = [(value, place) for place, value in enumerate(p_values) if value is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = largest
    return adjusted
