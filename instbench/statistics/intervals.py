"""Intervals of one number, and of the difference of two on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from instbench.statistics.resampling import Resamples, draw_resamples
from instbench.statistics.samples import InfluenceSamples, RatioSamples, Samples

__all__ = ["PairedDifference", "holm", "interval", "paired_difference", "wilson_interval"]

LEVEL = 0.95
_FEWEST = 2  # resamples
_NOTHING = 1e-12


def wilson_interval(share: float, count: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share of independent units.

    Args:
        share: The share, in [0, 1].
        count: Number of units, above 0.
        level: Confidence.
    """
    return _wilson(share, count, float(stats.norm.ppf((1 + level) / 2)))


def _wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / count
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square) / (1 + square) * math.sqrt(share * (1 - share) + square / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class _Spread:
    """How far a number is uncertain.

    Attributes:
        error: Standard error.
        units: How many images of equal size would tell as much.
    """

    error: float
    units: float

    def quantile(self, level: float) -> float:
        """Student's quantile."""
        return float(stats.t.ppf((1 + level) / 2, self._freedom))

    def p_value(self, value: float) -> float:
        """Two-sided, of a true value of 0."""
        return min(1.0, 2 * float(stats.t.sf(abs(value) / self.error, self._freedom)))

    @property
    def _freedom(self) -> float:
        return max(1.0, self.units - 1)


def _spread(parts: Sequence[tuple[int, Samples]], resamples: Resamples | None) -> _Spread | None:
    """Spread of a sum of numbers on the same images.

    Means over objects and distances: by the jackknife. Others: by the bootstrap, whose N images have the spread of N,
    not of N - 1.

    Args:
        parts: Sign and number.
        resamples: From `draw_resamples`; None draws them where they are needed.

    Returns:
        The spread; None where fewer than two images are behind a number.
    """
    units = min(samples.units() for _, samples in parts)
    if units < 1 + _NOTHING:
        return None
    deviations = [_deviations(samples) for _, samples in parts]
    known = [one for one in deviations if one is not None]
    if len(known) == len(parts):
        total = sum(sign * one for (sign, _), one in zip(parts, known, strict=True))
        return _Spread(math.sqrt(float(np.square(total).sum())), units)
    resamples = resamples or draw_resamples(parts[0][1].num_images)
    values = np.asarray(sum(sign * resamples.of(samples) for sign, samples in parts))
    values = values[np.isfinite(values)]
    if len(values) < _FEWEST:
        return None
    return _Spread(float(np.std(values, ddof=1)) * math.sqrt(units / max(1.0, units - 1)), units)


def _deviations(samples: Samples) -> NDArray[np.float64] | None:
    """What each image adds to the standard error [N], their squares adding up; None where only resamples tell.

    For a mean, that is by how much it falls when the image is left out (jackknife).
    """
    if isinstance(samples, InfluenceSamples):
        count = samples.num_images
        return samples.influences / math.sqrt(max(1, count * (count - 1)))
    if isinstance(samples, RatioSamples):
        total, count = samples.counts.sum(), max(1, int(np.count_nonzero(samples.counts)))
        changes = (samples.sums - samples.sums.sum() / total * samples.counts) / (total - samples.counts)
        return changes * math.sqrt((count - 1) / count)
    return None


def interval(
    samples: Samples,
    resamples: Resamples | None = None,
    *,
    fraction: bool = True,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Interval over images.

    A fraction gets Wilson's interval, with the number of independent units that has the standard error found over
    images, and with Student's quantile; other numbers get plus and minus the standard error times that quantile. Where
    a fraction is the same in every image (all hit, all missed) every image is a unit.

    Args:
        samples: The number by image.
        resamples: From `draw_resamples`; None draws them where they are needed.
        fraction: Whether the number lies in [0, 1].
        level: Confidence.

    Returns:
        Lower and upper end; None where there is no number or fewer than two images behind it.
    """
    value = samples.value()
    spread = None if value is None else _spread([(1, samples)], resamples)
    if value is None or spread is None:
        return None
    if not fraction:
        reach = spread.quantile(level) * spread.error
        return value - reach, value + reach
    share = min(1.0, max(0.0, value))
    if spread.error < _NOTHING or share * (1 - share) < _NOTHING:
        low, high = wilson_interval(share, spread.units, level)
    else:
        low, high = _wilson(share, share * (1 - share) / spread.error**2, spread.quantile(level))
    return min(low, value), max(high, value)  # up to rounding, the number lies in it


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
    first: Samples,
    second: Samples,
    resamples: Resamples | None = None,
    level: float = LEVEL,
    *,
    fraction: bool = True,
) -> PairedDifference | None:
    """Compares two runs on the same layouts and seeds.

    Interval and p value come from the spread of the differences and Student's distribution over the images, so that
    they agree: the interval leaves out 0 exactly where p is below 0.05. Where every image gives the same difference,
    they are those of the sign test; where that is 0, of the share of images that could differ unseen.

    Args:
        first: The baseline.
        second: The other run, images in the same order.
        resamples: From `draw_resamples`; None draws them where they are needed.
        level: Confidence.
        fraction: Whether the numbers lie in [0, 1].

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
    if before is None or after is None:
        return None
    value = after - before
    spread = _spread([(-1, first), (1, second)], resamples)
    if spread is None:
        return None
    if spread.error < _NOTHING:
        return _constant_difference(value, spread.units, level, fraction)
    reach = spread.quantile(level) * spread.error
    return PairedDifference(value, (value - reach, value + reach), spread.p_value(value))


def _constant_difference(value: float, units: float, level: float, fraction: bool) -> PairedDifference:
    """A difference that is the same in every image: what as many images without a contrary one leave possible."""
    least = ((1 - level) / 2) ** (1 / units)  # Clopper and Pearson's share of images of this kind
    if abs(value) < _NOTHING:
        reach = 1 - least if fraction else 0.0
        return PairedDifference(value, (-reach, reach), 1.0)
    low, high = sorted((value, value * (2 * least - 1)))
    return PairedDifference(value, (low, high), min(1.0, 2 * 0.5**units))


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
