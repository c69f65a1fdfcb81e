from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from metrics import (
    feature_statistics,
    frechet_distance,
    frechet_from_features,
    frechet_from_statistics,
    kernel_distance,
)
from metrics.functional.frechet import TOO_FEW


class Passing(torch.nn.Module):
    """A feature extractor that is given features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def pair(n: int, m: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size)) / size**0.5
    return rng.normal(size=(n, size)) @ mixing, rng.normal(0.1, 1.2, size=(m, size)) @ mixing + 0.5


@pytest.mark.parametrize(("n", "m", "size"), [(200, 150, 16), (300, 300, 64), (40, 50, 64)])
def test_equals_torchmetrics_fid(n: int, m: int, size: int) -> None:
    ours, theirs = pair(n, m, size)
    fid = FrechetInceptionDistance(feature=Passing(size))
    fid.update(torch.from_numpy(theirs), real=True)
    fid.update(torch.from_numpy(ours), real=False)
    assert frechet_from_features(ours, theirs).value == pytest.approx(float(fid.compute()), rel=1e-6)


def test_by_hand() -> None:
    assert frechet_distance([0.0, 0.0], np.eye(2), [3.0, 4.0], np.eye(2)) == pytest.approx(25.0)
    # One dimension: (difference of means)^2 + (difference of standard deviations)^2.
    assert frechet_distance([1.0], [[4.0]], [3.0], [[9.0]]) == pytest.approx(4.0 + 1.0)
    diagonal = frechet_distance(np.zeros(2), np.diag([1.0, 4.0]), np.zeros(2), np.diag([9.0, 16.0]))
    assert diagonal == pytest.approx((1 - 3) ** 2 + (2 - 4) ** 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
def test_is_a_distance(seed: int, shift: float) -> None:
    ours, theirs = pair(30, 40, 4, seed)
    forth = frechet_from_features(ours, theirs).value
    # Not closer: a nearly singular covariance costs half of the digits under the square root.
    assert forth == pytest.approx(frechet_from_features(theirs, ours).value, rel=1e-6)
    assert forth is not None
    assert forth >= 0
    assert frechet_from_features(ours, ours).value == pytest.approx(0.0, abs=1e-6)
    assert frechet_from_features(ours, ours + shift).value == pytest.approx(4 * shift**2, rel=1e-6, abs=1e-6)
    order = np.random.default_rng(seed).permutation(len(ours))
    assert frechet_from_features(ours[order], theirs).value == pytest.approx(forth, rel=1e-6)


def test_statistics_and_counts() -> None:
    ours, theirs = pair(30, 40, 4)
    statistics = feature_statistics(ours)
    np.testing.assert_allclose(statistics.covariance, np.cov(ours, rowvar=False))
    result = frechet_from_statistics(statistics, feature_statistics(theirs))
    assert result == frechet_from_features(ours, theirs)
    assert (result.n_scored, result.n_unscored, result.n_reference, result.num_features) == (30, 0, 40, 4)
    few = frechet_from_features(ours[:1], theirs)
    assert (few.value, few.n_scored, few.n_unscored, few.reasons) == (None, 0, 1, {TOO_FEW: 1})


@pytest.mark.parametrize("subset_size", [None, 50])
def test_equals_torchmetrics_kid_where_a_subset_is_the_whole_set(subset_size: int | None) -> None:
    ours, theirs = pair(50, 50, 8)
    kid = KernelInceptionDistance(feature=Passing(8), subsets=3, subset_size=50)
    kid.update(torch.from_numpy(theirs), real=True)
    kid.update(torch.from_numpy(ours), real=False)
    mean, _ = kid.compute()
    result = kernel_distance(ours, theirs, subsets=3, subset_size=subset_size)
    assert result.mean == pytest.approx(float(mean), rel=1e-6)
    assert result.std == pytest.approx(0.0, abs=1e-12)
    assert float(result) == result.mean


def test_kernel_distance_is_unbiased_and_seeded() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.normal(size=(2, 100, 4)), subsets=1).mean for _ in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 60**0.5
    ours, theirs = pair(80, 90, 4)
    first = kernel_distance(ours, theirs, subset_size=20, seed=1)
    assert first == kernel_distance(ours, theirs, subset_size=20, seed=1)
    assert first != kernel_distance(ours, theirs, subset_size=20, seed=2)
    assert first.mean > 0


def test_kernel_distance_of_pairs_is_unbiased_and_of_a_set_to_itself_nothing() -> None:
    rng = np.random.default_rng(0)
    plain, paired = [], []
    for _ in range(200):
        shared = rng.normal(size=(40, 4))  # two images of a layout: alike, of one distribution
        ours, theirs = (0.9 * shared + 0.4 * rng.normal(size=(40, 4)) for _ in range(2))
        plain.append(kernel_distance(ours, theirs).mean)
        paired.append(kernel_distance(ours, theirs, paired=True).mean)
    assert abs(np.mean(paired)) < 3 * np.std(paired) / 200**0.5
    assert np.mean(plain) < -5 * np.std(plain) / 200**0.5
    same = 5 * rng.normal(size=(60, 96)).astype(np.float32)
    assert kernel_distance(same, same.copy(), paired=True) == (0.0, 0.0)
    assert kernel_distance(same, same.copy(), subset_size=20, paired=True) == (0.0, 0.0)
    with pytest.raises(ValueError, match="pairs need"):
        kernel_distance(same, same[:-1], paired=True)


def test_bad_input() -> None:
    good, short = np.zeros((5, 3)), np.zeros((5, 2))
    with pytest.raises(ValueError, match="row 1 is not finite"):
        frechet_from_features(np.array([[0.0], [np.nan]]), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="length 3 against 2"):
        frechet_from_features(good, short)
    with pytest.raises(ValueError, match="features are"):
        frechet_from_features(np.zeros(3), good)
    with pytest.raises(ValueError, match="covariance needs at least 2"):
        feature_statistics(good[:1])
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(1), [[np.inf]], np.zeros(1), [[1.0]])
    with pytest.raises(ValueError, match="subset_size: 9"):
        kernel_distance(good, good, subset_size=9)
    with pytest.raises(ValueError, match="subsets: 0"):
        kernel_distance(good, good, subsets=0)
    with pytest.raises(ValueError, match="same extractor"):
        kernel_distance(good, short)
