"""Influence of each image on FID and KID.

An image of a run and the real image of its layout are one unit: both are resampled together. The influences are the
derivatives of FID with respect to the weight of an image (infinitesimal jackknife), exact to first order, and the
changes of KID when a pair is left out (jackknife). So the bias that FID has at small counts stays in the interval as
it stays in the number.
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


def kernel_influences(made: Matrix, real: Matrix) -> Matrix:
    """Influences on the squared MMD of pairs with the kernel ``(<x, y> / D + 1) ** 3``.

    It is a U-statistic of the pairs, whose value without one of them is known in closed form; so these are the
    jackknife's. To first order alone, intervals would be too narrow at few images.

    Args:
        made: Features [N, D].
        real: Features of the real images of the same layouts, [N, D].

    Returns:
        Influences [N].
    """
    count, size = made.shape

    def kernel(a: Matrix, b: Matrix) -> Matrix:
        result: Matrix = (a @ b.T / size + 1.0) ** 3
        return result

    across = kernel(made, real)
    pairs = kernel(made, made) + kernel(real, real) - across - across.T
    np.fill_diagonal(pairs, 0.0)
    means = pairs.sum(axis=1) / max(1, count - 1)
    return 2.0 * (count - 1) / max(1, count - 2) * (means - means.mean())


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
    influences = np.zeros(len(present))
    if point == 0:  # the least that it can be, where all derivatives are 0; computed, they would be rounding
        return InfluenceSamples(point, influences)
    of_made, of_real = frechet_influences(made.astype(np.float64), real.astype(np.float64))
    influences[present] = of_made * _share(present)
    if len(real) == len(present):
        influences += of_real
    return InfluenceSamples(point, influences)


def kernel_samples(
    point: float, made: Features, real: Features, present: NDArray[np.bool_]
) -> InfluenceSamples:
    """KID of a run by layout.

    Args:
        point: The distance, of pairs.
        made: Features of the images that exist, [P, D], in the order of the layouts.
        real: Features of the real images, one of each layout, [N, D]; those of layouts without an image are left out.
        present: bool [N], layouts whose image exists.
    """
    influences = np.zeros(len(present))
    if point != 0:  # else images against themselves: what could be computed would be rounding
        pairs = made.astype(np.float64), real[present].astype(np.float64)
        influences[present] = kernel_influences(*pairs) * _share(present)
    return InfluenceSamples(point, influences)


def _share(present: NDArray[np.bool_]) -> float:
    """An influence on a mean over the images that exist, as one on a mean over all layouts."""
    return len(present) / max(1, int(present.sum()))
