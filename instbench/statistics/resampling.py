"""Resamples of the images of a run, as weights."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from instbench.seeds import derive_seed

if TYPE_CHECKING:
    from instbench.statistics.samples import Samples

__all__ = ["NUM_RESAMPLES", "Resamples", "draw_resamples"]

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Resamples:
    """How often each image counts in each resample, and what was computed of it.

    Attributes:
        weights: Counts, float32 [B, N].
        memo: What numbers share under these weights, kept by whoever computed it.
    """

    weights: NDArray[np.float32]
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def of(self, samples: Samples) -> NDArray[np.float64]:
        """A number in each resample [B]; NaN where there is nothing to score. It is computed once."""
        key = ("of", id(samples))
        if key not in self.memo:
            self.memo[key] = (samples, samples.resampled(self))  # samples, so that the id stays theirs
        values: NDArray[np.float64] = self.memo[key][1]
        return values


def draw_resamples(num_images: int, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Resamples:
    """Draws resamples of the images, with replacement, as many as there are.

    The same arguments give the same weights, so two runs on the same layouts are resampled alike, which makes their
    comparison paired.

    Args:
        num_images: Number of images N.
        num_resamples: Number of resamples B.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(derive_seed("bootstrap", 1, str(num_images), seed=seed))
    weights = np.zeros((num_resamples, num_images), dtype=np.float32)
    for row in weights:
        row[:] = (
            np.bincount(rng.integers(num_images, size=num_images), minlength=num_images) if num_images else 0
        )
    return Resamples(weights)
