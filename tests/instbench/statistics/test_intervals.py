"""Intervals and tests against closed forms and simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from instbench.statistics.distances import frechet_samples, kernel_samples
from instbench.statistics.intervals import holm, interval, paired_difference, wilson_interval
from instbench.statistics.ranks import rank_groups
from instbench.statistics.resampling import draw_resamples
from instbench.statistics.samples import InfluenceSamples, MeanSamples, RatioSamples, pool_repeats
from metrics import frechet_from_features, kernel_distance


def test_one_unit_an_image_agrees_with_the_closed_form():
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 0.1, 500)
    low, high = interval(RatioSamples(values, np.ones(500)))
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(500)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def _clustered(rng, num_images, spread=1.5):
    """Hits of several objects an image that share the image's own difficulty; the true mean over objects."""
    counts = rng.integers(1, 7, num_images)
    chance = stats.norm.cdf(0.8 + spread * rng.normal(size=num_images))
    return RatioSamples(rng.binomial(counts, chance).astype(float), counts.astype(float))


def test_coverage_of_clustered_shares():
    truth = stats.norm.cdf(0.8 / np.sqrt(1 + 1.5**2))
    weights, rng = draw_resamples(150), np.random.default_rng(1)
    covered = [
        low <= truth <= high for low, high in (interval(_clustered(rng, 150), weights) for _ in range(1000))
    ]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_treating_objects_as_independent_would_not_cover():
    truth, rng, covered = stats.norm.cdf(0.8 / np.sqrt(1 + 1.5**2)), np.random.default_rng(1), []
    for _ in range(400):
        one = _clustered(rng, 150)
        low, high = wilson_interval(one.value(), int(one.counts.sum()))
        covered.append(low <= truth <= high)
    assert np.mean(covered) < 0.9


def test_coverage_and_size_of_paired_differences():
    weights, rng = draw_resamples(150), np.random.default_rng(2)
    covered, rejected = [], []
    for _ in range(1000):
        counts = rng.integers(1, 7, 150)
        shared = rng.normal(size=150)
        runs = []
        for shift in (0.4, 0.6):
            chance = stats.norm.cdf(shift + shared + 0.5 * rng.normal(size=150))
            runs.append(RatioSamples(rng.binomial(counts, chance).astype(float), counts.astype(float)))
        truth = stats.norm.cdf(0.6 / 1.5) - stats.norm.cdf(0.4 / 1.5)
        found = paired_difference(*runs, weights)
        covered.append(found.ci95[0] <= truth <= found.ci95[1])
        same = RatioSamples(
            rng.binomial(counts, stats.norm.cdf(0.4 + shared + 0.5 * rng.normal(size=150))).astype(float),
            counts.astype(float),
        )
        rejected.append(paired_difference(runs[0], same, weights).p_value < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=300)
    one = RatioSamples(difficulty, np.ones(300))
    two = RatioSamples(difficulty + 0.1 + 0.05 * rng.normal(size=300), np.ones(300))
    paired = paired_difference(one, two)
    alone = interval(one, fraction=False)
    assert paired.p_value < 1e-6
    assert paired.ci95[1] - paired.ci95[0] < 0.2 * (alone[1] - alone[0])


def test_equal_runs_do_not_differ_and_opposite_ones_do():
    hits, misses = RatioSamples(np.ones(20), np.ones(20)), RatioSamples(np.zeros(20), np.ones(20))
    same = paired_difference(hits, hits)
    assert (same.value, same.p_value) == (0.0, 1.0)
    unseen = 1 - 0.025 ** (
        1 / 20
    )  # so large a share of other images stays unseen in 20 with a chance of 2.5 %
    assert same.ci95 == pytest.approx((-unseen, unseen))
    assert paired_difference(hits, hits, fraction=False).ci95 == (0.0, 0.0)
    assert paired_difference(misses, hits).p_value == pytest.approx(2 * 0.5**20)
    assert paired_difference(hits, misses).ci95 == pytest.approx((-1, 1 - 2 * 0.025 ** (1 / 20)))
    with pytest.raises(ValueError, match="images"):
        paired_difference(hits, RatioSamples(np.ones(3), np.ones(3)))


def test_all_hit_is_no_certainty():
    low, high = interval(RatioSamples(np.full(16, 3.0), np.full(16, 3.0)))
    assert high == 1
    assert low == pytest.approx(wilson_interval(1.0, 16)[0])
    for counts in ([1.0, 2.0, 4.0], [2.0, 3.0, 1.0, 1.0], [5.0, 1.0]):
        sizes = np.array(counts)
        assert interval(RatioSamples(sizes, sizes))[1] == 1
        assert interval(RatioSamples(0 * sizes, sizes))[0] == 0
    assert interval(RatioSamples(np.ones(1), np.ones(1))) is None
    assert interval(RatioSamples(np.zeros(5), np.zeros(5))) is None


@pytest.mark.parametrize("count", [2, 5, 6, 9])
@pytest.mark.parametrize("size", [1.0, 0.25])
def test_an_interval_leaves_out_no_difference_exactly_where_p_is_small(count, size):
    none = RatioSamples(np.zeros(count), np.ones(count))
    found = paired_difference(none, RatioSamples(np.full(count, size), np.ones(count)))
    assert (found.ci95[0] > 0) == (found.p_value < 0.05) == (count >= 6)
    assert found.ci95[1] == size


def _uneven(rng, num_images):
    """As `_clustered`, but a few images hold most of the objects."""
    counts = np.minimum(30, np.ceil(rng.pareto(1.2, num_images) + 0.01)).astype(int)
    chance = stats.norm.cdf(0.8 + rng.normal(size=num_images))
    return RatioSamples(rng.binomial(counts, chance).astype(float), counts.astype(float))


def _single(rng, num_images):
    """One object an image, hit in 19 of 20."""
    return RatioSamples((rng.random(num_images) < 0.95).astype(float), np.ones(num_images))


@pytest.mark.parametrize(
    ("make", "num_images", "truth"),
    [
        (_clustered, 8, stats.norm.cdf(0.8 / np.sqrt(1 + 1.5**2))),
        (_clustered, 24, stats.norm.cdf(0.8 / np.sqrt(1 + 1.5**2))),
        (_uneven, 24, stats.norm.cdf(0.8 / np.sqrt(2))),
        (_uneven, 64, stats.norm.cdf(0.8 / np.sqrt(2))),
        (_single, 24, 0.95),
        (_single, 64, 0.95),
    ],
)
def test_coverage_of_few_images_of_uneven_ones_and_near_the_end(make, num_images, truth):
    rng = np.random.default_rng(14)
    ends = [interval(make(rng, num_images)) for _ in range(2000)]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.975


def test_size_and_coverage_of_differences_of_few_and_uneven_images():
    rng, covered, rejected = np.random.default_rng(15), [], []
    spread = np.sqrt(1 + 1 + 0.25)
    truth = stats.norm.cdf(0.7 / spread) - stats.norm.cdf(0.4 / spread)
    for _ in range(1000):
        counts = np.minimum(30, np.ceil(rng.pareto(1.2, 40) + 0.01)).astype(int)
        shared = rng.normal(size=40)
        first, second, same = (
            RatioSamples(
                rng.binomial(counts, stats.norm.cdf(shift + shared + 0.5 * rng.normal(size=40))), counts
            )
            for shift in (0.4, 0.7, 0.4)
        )
        found = paired_difference(first, second)
        covered.append(found.ci95[0] <= truth <= found.ci95[1])
        rejected.append(paired_difference(first, same).p_value < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.975
    assert 0.02 <= np.mean(rejected) <= 0.07


def test_equal_models_are_seldom_parted():
    """Of eight models that are equally good, any two differ after Holm's correction in at most one case of 20."""
    rng, parted = np.random.default_rng(16), []
    for _ in range(100):
        counts, shared = rng.integers(1, 7, 60), rng.normal(size=60)
        models = [
            RatioSamples(rng.binomial(counts, stats.norm.cdf(0.8 + shared + 0.5 * noise)), counts)
            for noise in rng.normal(size=(8, 60))
        ]
        pairs = list(combinations(range(8), 2))
        adjusted = holm([paired_difference(models[one], models[other]).p_value for one, other in pairs])
        parted.append(min(adjusted) < 0.05)
    assert np.mean(parted) <= 0.08


def _repeated(rng, num_images, shifts, repeats=3):
    """Hits of models on the same images in several repeats: the image's difficulty is in all of them."""
    counts = rng.integers(1, 7, num_images)
    difficulty = 1.2 * rng.normal(size=num_images)
    return [
        [
            RatioSamples(rng.binomial(counts, chance).astype(float), counts.astype(float))
            for chance in stats.norm.cdf(shift + difficulty + 0.5 * rng.normal(size=(repeats, num_images)))
        ]
        for shift in shifts
    ]


def test_coverage_with_repeats_as_clusters_and_without():
    weights, rng = draw_resamples(120), np.random.default_rng(8)
    truth = stats.norm.cdf(0.6 / np.sqrt(1 + 1.2**2 + 0.5**2))
    honest, naive = [], []
    apart = draw_resamples(360)
    for _ in range(1000):
        [runs] = _repeated(rng, 120, (0.6,))
        low, high = interval(pool_repeats(runs), weights)
        honest.append(low <= truth <= high)
        independent = RatioSamples(
            np.concatenate([one.sums for one in runs]), np.concatenate([one.counts for one in runs])
        )
        low, high = interval(independent, apart)
        naive.append(low <= truth <= high)
    assert 0.93 <= np.mean(honest) <= 0.97
    assert np.mean(naive) < 0.85


def test_coverage_and_size_of_paired_differences_with_repeats():
    weights, rng = draw_resamples(120), np.random.default_rng(9)
    spread = np.sqrt(1 + 1.2**2 + 0.5**2)
    truth = stats.norm.cdf(0.7 / spread) - stats.norm.cdf(0.4 / spread)
    covered, rejected = [], []
    for _ in range(1000):
        first, second, same = (pool_repeats(runs) for runs in _repeated(rng, 120, (0.4, 0.7, 0.4)))
        found = paired_difference(first, second, weights)
        covered.append(found.ci95[0] <= truth <= found.ci95[1])
        rejected.append(paired_difference(first, same, weights).p_value < 0.05)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_numbers_that_are_no_means_of_objects_are_averaged_over_repeats():
    made = [_features(np.random.default_rng(seed), 300)[0] for seed in (10, 11, 12)]
    real = _features(np.random.default_rng(10), 300)[1]
    present = np.ones(300, dtype=bool)
    distance = [frechet_from_features(one, real).value for one in made]
    each = [frechet_samples(point, one, real, present) for point, one in zip(distance, made, strict=True)]
    pooled = pool_repeats(each)
    assert pooled.value() == pytest.approx(np.mean(distance))
    jackknife = np.array(
        [
            np.mean(
                [
                    frechet_from_features(np.delete(one, i, axis=0), np.delete(real, i, axis=0)).value
                    for one in made
                ]
            )
            for i in range(60)
        ]
    )
    expected = 299 * (np.mean(distance) - jackknife)
    assert np.corrcoef(expected, pooled.influences[:60])[0, 1] > 0.99
    mixed = pool_repeats([each[0], RatioSamples(np.ones(300), np.ones(300))])
    assert isinstance(mixed, MeanSamples)
    weights = draw_resamples(300, 5)
    assert weights.of(mixed) == pytest.approx((weights.of(each[0]) + 1) / 2)
    assert pool_repeats([each[0], None]) is None
    assert MeanSamples((each[0], RatioSamples(np.zeros(300), np.zeros(300)))).value() is None


def _features(rng, count):
    real = rng.normal(size=(count, 4))
    return 0.8 * real + rng.normal(size=(count, 4)) * 0.7 + 0.3, real


def test_influences_are_the_derivatives_of_the_distances():
    made, real = _features(np.random.default_rng(5), 400)
    present = np.ones(400, dtype=bool)
    for samples, distance in (
        (frechet_samples, lambda a, b: frechet_from_features(a, b).value),
        (kernel_samples, lambda a, b: kernel_distance(a, b, paired=True).mean),
    ):
        found = samples(distance(made, real), made, real, present)
        jackknife = np.array(
            [distance(np.delete(made, i, axis=0), np.delete(real, i, axis=0)) for i in range(400)]
        )
        expected = 399 * (jackknife.mean() - jackknife)
        assert np.corrcoef(expected, found.influences)[0, 1] > 0.99
        assert found.influences.std() == pytest.approx(expected.std(), rel=0.15)
        if samples is kernel_samples:
            assert found.influences == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("samples", "count"), [(frechet_samples, 120), (kernel_samples, 120), (kernel_samples, 16)]
)
def test_coverage_of_distances(samples, count):
    def distance(made, real):
        if samples is frechet_samples:
            return frechet_from_features(made, real).value
        return kernel_distance(made, real, paired=True).mean

    rng, estimates = np.random.default_rng(6), []
    for _ in range(1000):
        made, real = _features(rng, count)
        estimates.append(samples(distance(made, real), made, real, np.ones(count, dtype=bool)))
    # The interval is one of the number at this count: the bias of FID at small counts is in both.
    truth = np.mean([one.point for one in estimates])
    ends = [interval(one, fraction=False) for one in estimates]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.97


@pytest.mark.parametrize(("count", "size"), [(200, 4), (24, 128)])
def test_images_against_themselves_are_at_no_distance(count, size):
    real = np.random.default_rng(13).normal(3.0, 2.0, (count, size)).astype(np.float32)
    distance = frechet_from_features(real, real.copy()).value
    assert distance == 0
    found = interval(frechet_samples(distance, real, real, np.ones(count, dtype=bool)), fraction=False)
    assert found == (0.0, 0.0)
    distance = kernel_distance(real, real.copy(), paired=True).mean
    assert distance == 0
    found = interval(kernel_samples(distance, real, real, np.ones(count, dtype=bool)), fraction=False)
    assert found == (0.0, 0.0)
    shifted = frechet_from_features(real + np.float32(1e-2), real).value
    assert shifted == pytest.approx(size * 1e-4, rel=0.01)  # a small distance is no rounding


def test_missing_images_count_for_the_real_side_alone():
    made, real = _features(np.random.default_rng(7), 30)
    present = np.arange(30) > 4
    found = frechet_samples(1.0, made[present], real, present)
    assert len(found.influences) == 30
    fixed = frechet_samples(1.0, made[present], real[:20], present)
    assert np.all(fixed.influences[:5] == 0)
    assert isinstance(fixed, InfluenceSamples)
    # What is missing adds nothing to what is known: the interval is that of the images that exist.
    alone = frechet_samples(1.0, made[present], real[:20], np.ones(int(present.sum()), dtype=bool))
    widths = [np.ptp(interval(one, fraction=False)) for one in (fixed, alone)]
    assert widths[0] == pytest.approx(widths[1], rel=0.03)
    kernel = kernel_samples(1.0, made[present], real, present)
    assert np.all(kernel.influences[:5] == 0)
    assert kernel.influences.sum() == pytest.approx(0, abs=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06], nan_ok=True)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted, dtype=float)[order]) >= 0)


def test_ties_share_letters():
    values = [0.9, 0.5, 0.88, None, 0.6]
    different = {(0, 1), (0, 4), (1, 2), (2, 4)}
    letters = rank_groups(values, lambda a, b: (min(a, b), max(a, b)) in different)
    assert letters == ["a", "b", "a", "", "b"]
    assert rank_groups([1.0, 2.0], lambda a, b: True, higher_is_better=False) == ["a", "b"]


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            st.permutations(range(n)), st.sets(st.sampled_from(list(combinations(range(7), 2))))
        )
    )
)
def test_models_share_a_letter_exactly_where_they_do_not_differ(drawn):
    values, different = drawn
    letters = rank_groups(values, lambda a, b: (min(a, b), max(a, b)) in different)
    for one, other in combinations(range(len(values)), 2):
        assert bool(set(letters[one]) & set(letters[other])) == ((one, other) not in different)
    assert "a" in letters[int(np.argmax(values))]


def test_a_model_between_two_ties_does_not_part_them():
    assert rank_groups([3.0, 2.0, 1.0], lambda a, b: {a, b} == {0, 1}) == ["a", "b", "ab"]


def test_a_tie_that_is_not_transitive_overlaps():
    letters = rank_groups([3.0, 2.0, 1.0], lambda a, b: {a, b} == {0, 2})
    assert letters == ["a", "ab", "b"]
