"""What a number is made of, image by image, so that it can be computed again for any resample of the images.

Every kind has the same two members: ``value()`` and ``resampled(resamples)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instbench.statistics.resampling import Resamples

__all__ = ["InfluenceSamples", "MeanSamples", "RatioSamples", "Samples", "equal_units", "pool_repeats"]


def equal_units(sizes: NDArray[np.float64]) -> float:
    """Kish's effective number of units: as many of equal size tell as much as these; 0 where all sizes are 0.

    Args:
        sizes: Size of each unit, [N].
    """
    squares = float(np.square(sizes).sum())
    return float(sizes.sum()) ** 2 / squares if squares > 0 else 0.0


class Samples(Protocol):
    """A number as a function of the images."""

    @property
    def num_images(self) -> int:
        """Number of images N."""

    def value(self) -> float | None:
        """The number on the images as they are; None where nothing is scored."""

    def units(self) -> float:
        """Images of equal size that would tell as much (Kish); a few images with most of the objects tell little."""

    def resampled(self, resamples: Resamples) -> NDArray[np.float64]:
        """The number in each resample [B]; NaN where there is nothing to score. `Resamples.of` keeps it."""


@dataclass(frozen=True)
class RatioSamples:
    """A mean over units (objects) that lie in images: sum of values over number of units.

    Attributes:
        sums: float64 [N], sum of the values of each image's units.
        counts: float64 [N], number of its scored units.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, image_keys: Sequence[str], values: Iterable[tuple[str, float]]) -> RatioSamples:
        """Gathers (image key, value) pairs.

        Args:
            image_keys: All images, those without a value too.
            values: Values of units.
        """
        row_of: Mapping[str, int] = {key: row for row, key in enumerate(image_keys)}
        sums, counts = np.zeros(len(row_of)), np.zeros(len(row_of))
        for key, value in values:
            sums[row_of[key]] += value
            counts[row_of[key]] += 1
        return cls(sums, counts)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.sums)

    def value(self) -> float | None:
        """The mean."""
        total = self.counts.sum()
        return float(self.sums.sum() / total) if total else None

    def units(self) -> float:
        """Images of equal size that would tell as much; 0 where nothing is scored."""
        return equal_units(self.counts)

    def resampled(self, resamples: Resamples) -> NDArray[np.float64]:
        """The mean in each resample."""
        sums, counts = resamples.weights @ self.sums, resamples.weights @ self.counts
        result: NDArray[np.float64] = np.divide(
            sums, counts, out=np.full(len(counts), np.nan), where=counts > 0
        )
        return result

    def per_image(self) -> NDArray[np.float64]:
        """Mean of each image's units; NaN where it has none."""
        result: NDArray[np.float64] = np.divide(
            self.sums, self.counts, out=np.full(self.num_images, np.nan), where=self.counts > 0
        )
        return result


@dataclass(frozen=True)
class InfluenceSamples:
    """A smooth number by its first-order expansion: value plus the mean of the images' influences.

    Used where computing the number anew for every resample would take hours (FID with its matrix roots).

    Attributes:
        point: The number.
        influences: float64 [N], influence of each image; they sum to about 0.
    """

    point: float
    influences: NDArray[np.float64]

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.influences)

    def value(self) -> float | None:
        """The number."""
        return self.point

    def units(self) -> float:
        """Number of images."""
        return float(self.num_images)

    def resampled(self, resamples: Resamples) -> NDArray[np.float64]:
        """The expansion in each resample."""
        weights = resamples.weights
        result: NDArray[np.float64] = self.point + (weights @ self.influences) / weights.sum(axis=1)
        return result


@dataclass(frozen=True)
class MeanSamples:
    """The mean of a number over repeats of the same images, such as AP of runs with several seeds.

    Attributes:
        repeats: The number by image in each repeat; an image of a resample is drawn in all of them.
    """

    repeats: tuple[Samples, ...]

    @property
    def num_images(self) -> int:
        """Number of images, each counted once."""
        return self.repeats[0].num_images

    def value(self) -> float | None:
        """The mean; None where a repeat has no number."""
        values = [value for one in self.repeats if (value := one.value()) is not None]
        return float(np.mean(values)) if len(values) == len(self.repeats) else None

    def units(self) -> float:
        """Images of equal size that would tell as much, in the repeat with the fewest."""
        return min(one.units() for one in self.repeats)

    def resampled(self, resamples: Resamples) -> NDArray[np.float64]:
        """The mean in each resample."""
        result: NDArray[np.float64] = np.mean([resamples.of(one) for one in self.repeats], axis=0)
        return result


def pool_repeats(repeats: Sequence[Samples | None]) -> Samples | None:
    """A number of several repeats of the same images as one; the images stay the units.

    Means over objects become the mean over the objects of all repeats. Other numbers (AP, distances) are no means of
    objects; they become the mean of the repeats' numbers.

    Args:
        repeats: The number by image in each repeat, images in the same order.

    Returns:
        The common number; None where a repeat lacks it.
    """
    known = [one for one in repeats if one is not None]
    if not known or len(known) < len(repeats):
        return None
    if len(known) == 1:
        return known[0]
    ratios = [one for one in known if isinstance(one, RatioSamples)]
    if len(ratios) == len(known):
        return RatioSamples(
            np.sum([one.sums for one in ratios], axis=0), np.sum([one.counts for one in ratios], axis=0)
        )
    smooth = [one for one in known if isinstance(one, InfluenceSamples)]
    if len(smooth) == len(known):  # the influence on a mean is the mean of the influences
        return InfluenceSamples(
            float(np.mean([one.point for one in smooth])), np.mean([one.influences for one in smooth], axis=0)
        )
    return MeanSamples(tuple(known))
