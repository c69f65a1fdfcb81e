"""Influence of each image on FID and KID.

An image of a run and the real image of its layout are one unit: both are resampled together. The influences are the
derivatives of the distance with respect to the weight of an image (infinitesimal jackknife), exact to first order, so
the bias that FID has at small counts stays in the interval as it stays in the number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instbench.statistics.samples import InfluenceSamples

__all__ = ["frechet_influences", "frechet_samples", "kernel_influences", "kernel_samples"]

Matrix = NDArray[np.float64]
Features = NDArray[np.float32] | NDArray[np.float64]
_RANK = 1e-10  # eigenvalues below this share of the largest are taken as 0


def _power(matrix: Matrix, power: float) -> Matrix:
    values, vectors = np.linalg.eigh(matrix)
    kept = values > _RANK * max(float(values[-1]), 0.0)
    powers = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    result: Matrix = (vectors * powers) @ vectors.T
    return result


def frechet_influences(made: Matrix, real: Matrix) -> tuple[Matrix, Matrix]:
    """Influences on the squared Frechet distance of two sets.

    Derivative with respect to a covariance: ``I - T`` with the optimal transport map ``T`` between the two Gaussians.

    Args:
        made: Features [N, D].
        real: Features [M, D].

    Returns:
        Influences [N] and [M].
    """
    means = made.mean(axis=0), real.mean(axis=0)
    centred = made - means[0], real - means[1]
    covariances = [one.T @ one / max(1, len(one) - 1) for one in centred]
    shift = means[0] - means[1]
    root = _power(covariances[1], 0.5)
    transport = root @ _power(root @ covariances[0] @ root, -0.5) @ root
    other = _power(covariances[0], 0.5)
    back = other @ _power(other @ covariances[1] @ other, -0.5) @ other
    results = []
    for rows, sign, plan in ((centred[0], 1.0, transport), (centred[1], -1.0, back)):
        squares = np.einsum("nd,nd->n", rows, rows - rows @ plan)
        results.append(2 * sign * rows @ shift + squares - squares.mean())
    return results[0], results[1]


def kernel_influences(made: Matrix, real: Matrix, *, paired: bool = False) -> tuple[Matrix, Matrix]:
    """Influences on the unbiased squared MMD with the kernel ``(<x, y> / D + 1) ** 3``.

    Args:
        made: Features [N, D].
        real: Features [M, D].
        paired: Row i of both belongs together, see `metrics.kernel_distance`.

    Returns:
        Influences [N] and [M].
    """
    size = made.shape[1]

    def kernel(a: Matrix, b: Matrix) -> Matrix:
        result: Matrix = (a @ b.T / size + 1.0) ** 3
        return result

    across = kernel(made, real)
    if paired:
        np.fill_diagonal(across, 0.0)
        across *= len(made) / max(1, len(made) - 1)  # means over the others
    results = []
    for rows, crossed in ((made, across.mean(axis=1)), (real, across.mean(axis=0))):
        own = kernel(rows, rows)
        within = (own.sum(axis=1) - np.diag(own)) / max(1, len(rows) - 1)
        first_order = 2 * (within - crossed)
        results.append(first_order - first_order.mean())
    return results[0], results[1]


def _samples(point: float, made: Matrix, real: Matrix, present: NDArray[np.bool_]) -> InfluenceSamples:
    """Influences by layout; an image that is missing has none, and no real images' if they are not one a layout."""
    influences = np.zeros(len(present))
    influences[present] = made * (len(present) / max(1, int(present.sum())))
    if len(real) == len(present):
        influences += real
    return InfluenceSamples(point, influences)


def frechet_samples(
    point: float, made: Features, real: Features, present: NDArray[np.bool_]
) -> InfluenceSamples:
    """FID of a run by layout.

    Args:
        point: The distance.
        made: Features of the images that exist, [P, D], in the order of the layouts.
        real: Features of the real images, [M, D]; one of each layout, or another reference set, which is then
            taken as fixed.
        present: bool [N], layouts whose image exists.
    """
    if point == 0:  # the least that it can be, where all derivatives are 0; computed, they would be rounding
        return InfluenceSamples(point, np.zeros(len(present)))
    influences = frechet_influences(made.astype(np.float64), real.astype(np.float64))
    return _samples(point, *influences, present)


def kernel_samples(
    point: float, made: Features, real: Features, present: NDArray[np.bool_]
) -> InfluenceSamples:
    """KID of a run by layout; arguments as in `frechet_samples`, real images of layouts without an image left out."""
    paired = len(real) == len(present)
    others = real[present] if paired else real
    influences = kernel_influences(made.astype(np.float64), others.astype(np.float64), paired=paired)
    if not paired:
        return _samples(point, *influences, present)
    both = np.zeros(len(present))
    both[present] = (influences[0] + influences[1]) * (len(present) / max(1, int(present.sum())))
    if point == 0 and np.array_equal(made, others):  # images against themselves: all that is left is rounding
        both[:] = 0.0
    return InfluenceSamples(point, both)
