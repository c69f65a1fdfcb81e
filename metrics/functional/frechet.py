"""Distances between two sets of image features: Fréchet distance (FID) and kernel distance (KID)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FeatureStatistics",
    "FrechetResult",
    "KernelDistance",
    "feature_statistics",
    "frechet_distance",
    "frechet_from_features",
    "frechet_from_statistics",
    "kernel_distance",
]

_ROUNDING = 1e-10  # of the traces; equal sets come out at about 1e-15 of them
TOO_FEW = "fewer than two images in one of the sets"


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Mean and covariance of a set of features.

    Attributes:
        mean: float64 [D].
        covariance: float64 [D, D], unbiased (divided by count - 1).
        count: Number of images.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int


@dataclass(frozen=True, slots=True)
class FrechetResult:
    """A Fréchet distance with its counts.

    Attributes:
        value: The distance, at least 0; None if a set has fewer than two images.
        n_scored: Images of the generated set, 0 if there is no value.
        n_unscored: Images of the generated set that went into no value.
        n_reference: Images of the reference set.
        num_features: Length of a feature. With fewer images than this the covariances are singular and the
            distance is biased upwards; compare such values only at equal counts.
        reasons: Why images are not scored.
    """

    value: float | None
    n_scored: int
    n_unscored: int
    n_reference: int
    num_features: int
    reasons: dict[str, int] = field(default_factory=dict)


class KernelDistance(NamedTuple):
    """Kernel distance: mean and standard deviation over subsets."""

    mean: float
    std: float

    def __float__(self) -> float:
        return self.mean


def _matrix(features: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name}: has shape {array.shape}; features are [images, length]")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"{name}: row {row} is not finite; leave that image out or compute it again")
    return array


def feature_statistics(features: ArrayLike) -> FeatureStatistics:
    """Mean and covariance of features.

    Args:
        features: [N, D] with N at least 2; computed in float64.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    array = _matrix(features, "features")
    if len(array) < 2:
        raise ValueError(f"features: {len(array)} image(s); a covariance needs at least 2")
    mean = array.mean(axis=0)
    centred = array - mean
    return FeatureStatistics(mean, centred.T @ centred / (len(array) - 1), len(array))


def frechet_distance(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """Squared Fréchet distance of two Gaussians, the formula of FID.

    ``|mu1 - mu2|^2 + Tr(sigma1) + Tr(sigma2) - 2 * sum(sqrt(eigenvalues(sigma1 @ sigma2)))`` in float64.
    Source: Heusel et al. 2017; the eigenvalue form is that of torchmetrics. What is below
    1e-10 of the traces is rounding and becomes 0, so that a set against itself is exactly 0.

    Args:
        mu1: Mean of the first set, [D].
        sigma1: Covariance of the first set, [D, D].
        mu2: Mean of the second set, [D].
        sigma2: Covariance of the second set, [D, D].

    Raises:
        ValueError: If the shapes do not fit or a value is not finite.
    """
    m1, m2 = np.atleast_1d(np.asarray(mu1, np.float64)), np.atleast_1d(np.asarray(mu2, np.float64))
    s1, s2 = np.atleast_2d(np.asarray(sigma1, np.float64)), np.atleast_2d(np.asarray(sigma2, np.float64))
    size = m1.size
    if m1.shape != (size,) or m2.shape != (size,) or s1.shape != (size, size) or s2.shape != (size, size):
        raise ValueError(
            f"frechet_distance: shapes {m1.shape}, {s1.shape}, {m2.shape}, {s2.shape} do not fit; "
            "give means [D] and covariances [D, D] of the same extractor"
        )
    if not all(np.isfinite(array).all() for array in (m1, s1, m2, s2)):
        raise ValueError("frechet_distance: a value is not finite; compute the statistics again")
    eigenvalues = np.linalg.eigvals(s1 @ s2).astype(np.complex128)
    trace_root = float(np.sqrt(eigenvalues).real.sum())
    traces = float(np.trace(s1) + np.trace(s2))
    distance = float(np.square(m1 - m2).sum()) + traces - 2 * trace_root
    return distance if distance > _ROUNDING * traces else 0.0


def frechet_from_statistics(generated: FeatureStatistics, reference: FeatureStatistics) -> FrechetResult:
    """Fréchet distance of two sets given by their statistics.

    Raises:
        ValueError: If the two feature lengths differ.
    """
    value = frechet_distance(generated.mean, generated.covariance, reference.mean, reference.covariance)
    return FrechetResult(value, generated.count, 0, reference.count, len(generated.mean))


def frechet_from_features(generated: ArrayLike, reference: ArrayLike) -> FrechetResult:
    """Fréchet distance of two sets of features.

    Args:
        generated: [N, D].
        reference: [M, D].

    Returns:
        The distance; without a value if a set has fewer than two images.

    Raises:
        ValueError: If the feature lengths differ or a value is not finite.
    """
    ours, theirs = _matrix(generated, "generated"), _matrix(reference, "reference")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"generated: features of length {ours.shape[1]} against {theirs.shape[1]} in the reference; "
            "use the same extractor"
        )
    if min(len(ours), len(theirs)) < 2:
        reasons = {TOO_FEW: len(ours)} if len(ours) else {}
        return FrechetResult(None, 0, len(ours), len(theirs), ours.shape[1], reasons)
    return frechet_from_statistics(feature_statistics(ours), feature_statistics(theirs))


def kernel_distance(
    features_a: ArrayLike,
    features_b: ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    degree: int = 3,
    gamma: float | None = None,
    coef: float = 1.0,
    seed: int = 0,
    paired: bool = False,
) -> KernelDistance:
    """Kernel inception distance: unbiased squared MMD with a polynomial kernel, over random subsets.

    Kernel ``(gamma * <x, y> + coef) ** degree``; subsets are drawn without replacement from each set. Source:
    Binkowski et al. 2018 and torchmetrics (100 subsets of 1000). Computed in float64; may be below 0.

    That is unbiased for sets that were drawn independently. Where row i of one set goes with row i of the other (the
    image and the real image of a layout), the two are alike beyond what the distributions are, and the estimate comes
    out too low. `paired` leaves such couples out of the mean across the sets, which is the unbiased estimate from pairs
    (Gretton et al. 2012, equation 4); a set against itself is then exactly 0.

    Args:
        features_a: [N, D].
        features_b: [M, D].
        subsets: Number of subsets.
        subset_size: Images of each set in a subset; None takes 1000, or all of the smaller set.
        degree: Degree of the kernel.
        gamma: Scale of the kernel; None takes 1 / D.
        coef: Constant of the kernel.
        seed: Seed of the subsets.
        paired: Row i of both sets belongs together; subsets are of pairs.

    Returns:
        Mean and standard deviation (biased, as published) over the subsets.

    Raises:
        ValueError: If the sets are too small, the feature lengths differ or a value is not finite.
    """
    a, b = _matrix(features_a, "features_a"), _matrix(features_b, "features_b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features_b: length {b.shape[1]} against {a.shape[1]}; use the same extractor")
    smaller = min(len(a), len(b))
    size = min(1000, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ValueError(f"subset_size: {size} must be at least 2 and at most the smaller set ({smaller})")
    if subsets < 1:
        raise ValueError(f"subsets: {subsets} must be at least 1")
    if paired and len(a) != len(b):
        raise ValueError(
            f"features_b: {len(b)} rows against {len(a)}; pairs need as many of one as of the other"
        )
    scale = 1.0 / a.shape[1] if gamma is None else gamma
    rng = np.random.default_rng(seed)
    if size == len(a) == len(b):
        subsets = 1  # all are the whole
    values = np.empty(subsets)
    for index in range(subsets):
        chosen = rng.permutation(len(a))[:size]
        x = a[chosen]
        y = b[chosen if paired else rng.permutation(len(b))[:size]]
        within_x = (scale * (x @ x.T) + coef) ** degree
        within_y = (scale * (y @ y.T) + coef) ** degree
        across = (scale * (x @ y.T) + coef) ** degree
        within = within_x.sum() - np.trace(within_x) + within_y.sum() - np.trace(within_y)
        apart = (across.sum() - np.trace(across)) / (size * (size - 1)) if paired else across.mean()
        value = within / (size * (size - 1)) - 2 * apart
        values[index] = value if abs(value) > _ROUNDING * abs(apart) else 0.0
    return KernelDistance(float(values.mean()), float(values.std()))
