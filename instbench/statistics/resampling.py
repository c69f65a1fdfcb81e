"""Resamples of the images (or other clusters) of a run, as weights."""

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


def draw_resamples(
    clusters: NDArray[np.int64] | int, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Resamples:
    """Draws resamples of the images.

    Clusters are drawn with replacement, as many as there are, and all images of a cluster together: images of one
    layout drawn from several seeds are one cluster. The same arguments give the same weights, so two runs on the
    same layouts are resampled alike, which makes their comparison paired.

    Args:
        clusters: Cluster of each image, int [N], or the number of images where each is a cluster of its own.
        num_resamples: Number of resamples B.
        seed: Seed of the draw.
    """
    own = np.arange(clusters) if isinstance(clusters, int) else np.unique(clusters, return_inverse=True)[1]
    count = int(own.max()) + 1 if len(own) else 0
    rng = np.random.default_rng(derive_seed("bootstrap", 1, str(count), seed=seed))
    weights = np.zeros((num_resamples, count), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count) if count else 0
    return Resamples(weights[:, own])
