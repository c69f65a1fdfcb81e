"""Resamples of the images (or other clusters) of a run, as weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instbench.seeds import derive_seed

__all__ = ["NUM_RESAMPLES", "resample_weights"]

NUM_RESAMPLES = 1000


def resample_weights(
    clusters: NDArray[np.int64] | int, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> NDArray[np.float32]:
    """How often each image counts in each resample.

    Clusters are drawn with replacement, as many as there are, and all images of a cluster together: images of one
    layout drawn from several seeds are one cluster. The same arguments give the same weights, so two runs on the
    same layouts are resampled alike, which makes their comparison paired.

    Args:
        clusters: Cluster of each image, int [N], or the number of images where each is a cluster of its own.
        num_resamples: Number of resamples B.
        seed: Seed of the draw.

    Returns:
        Counts, float32 [B, N].
    """
    own = np.arange(clusters) if isinstance(clusters, int) else np.unique(clusters, return_inverse=True)[1]
    count = int(own.max()) + 1 if len(own) else 0
    rng = np.random.default_rng(derive_seed("bootstrap", 1, str(count), seed=seed))
    weights = np.zeros((num_resamples, count), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(count, size=count), minlength=count) if count else 0
    return weights[:, own]
