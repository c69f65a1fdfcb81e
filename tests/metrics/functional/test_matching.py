from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import match_instances
from metrics.functional.matching import NO_DETECTION, NO_OVERLAP, TAKEN, assign
from tests.metrics.builders import annotation, detection, perfect, random_pair, truth


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_assignment_is_lexicographically_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 5, 2)
    secondary = np.round(rng.random((n, m)), 2)
    allowed = rng.random((n, m)) < 0.7
    primary = (secondary > 0.5).astype(float)
    chosen = assign(allowed, primary, secondary)
    used = chosen[chosen >= 0]
    assert len(set(used)) == len(used)
    assert all(allowed[row, column] for row, column in enumerate(chosen) if column >= 0)

    def value(pairs: list[tuple[int, int]]) -> tuple[float, float]:
        kept = [pair for pair in pairs if allowed[pair]]
        return sum(primary[pair] for pair in kept), round(sum(secondary[pair] for pair in kept), 9)

    size = max(n, m)
    best = max(
        value([(row, column) for row, column in enumerate(order[:n]) if column < m])
        for order in permutations(range(size))
    )
    assert value([(row, column) for row, column in enumerate(chosen) if column >= 0]) == best


def test_hits_come_before_iou() -> None:
    # Alone, the first detection fits instance 1 best; only the crossed assignment makes both a hit.
    gt = truth(annotation(1, (0, 0, 20, 10)), annotation(2, (6, 0, 20, 10)))
    wide, left = detection((2, 0, 20, 10), 0.9), detection((0, 0, 13, 10), 0.8)
    result = match_instances(gt, [wide, left])
    assert [match.detection for match in result.per_instance] == [1, 0]
    assert [match.iou for match in result.per_instance] == [pytest.approx(13 / 20), pytest.approx(16 / 24)]


def test_the_thresholds_themselves_count() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    for limit, found in ((0.1, True), (0.11, False)):
        assert match_instances(gt, [detection((0, 0, 10, 1))], min_iou=limit).per_instance[0].found is found
    for limit, found in ((0.5, True), (0.51, False)):
        result = match_instances(gt, [detection((0, 0, 10, 10), 0.5)], score_threshold=limit)
        assert result.per_instance[0].found is found
    # Two hits at an IoU of exactly a half come before one of 1.
    both = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (0, 0, 10, 5)))
    result = match_instances(both, [detection((0, 0, 10, 10)), detection((0, 5, 10, 5))], hit_iou=0.5)
    assert [match.detection for match in result.per_instance] == [1, 0]


def test_reasons_and_thresholds() -> None:
    gt = truth(
        annotation(1, (0, 0, 10, 10)),
        annotation(2, (1, 0, 10, 10)),
        annotation(3, (40, 20, 10, 10)),
        annotation(4, (0, 20, 10, 10), category=2),
        annotation(5, (20, 20, 10, 10), iscrowd=1),
        annotation(6, (20, 0, 10, 10), ignore=1, ignore_reason="over-cap"),
    )
    found = [
        detection((0, 0, 10, 10)),
        detection((0, 20, 10, 10), 0.29, category=2),
        detection((55, 0, 4, 4)),
    ]
    result = match_instances(gt, found)
    reasons = [match.reason for match in result.per_instance]
    assert reasons == [None, TAKEN, NO_OVERLAP, NO_DETECTION, "crowd", "over-cap"]
    assert [match.iou for match in result.per_instance] == [1.0, 0.0, 0.0, 0.0, None, None]
    assert (result.n_scored, result.n_unscored) == (4, 2)
    assert result.reasons == {"crowd": 1, "over-cap": 1}
    assert result.unassigned == (2,)
    strict = match_instances(gt, [detection((5, 0, 10, 10))], min_iou=0.9)
    assert not any(match.found for match in strict.per_instance)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_detections_does_not_matter(seed: int) -> None:
    gt, detections = random_pair(seed)
    order = np.random.default_rng(seed).permutation(len(detections))
    for iou_type in ("bbox", "segm"):
        one = match_instances(gt, detections, iou_type=iou_type)
        two = match_instances(gt, [detections[i] for i in order], iou_type=iou_type)
        assert [m.iou for m in one.per_instance] == [m.iou for m in two.per_instance]
        assert [m.score for m in one.per_instance] == [m.score for m in two.per_instance]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_one_to_one_within_class_and_perfect_is_found(seed: int) -> None:
    gt, detections = random_pair(seed)
    matches = match_instances(gt, detections).per_instance
    used = [match.detection for match in matches if match.found]
    assert len(used) == len(set(used))
    for match in matches:
        if match.detection is not None:
            assert detections[match.detection]["category_id"] == match.category_id
            assert detections[match.detection]["score"] >= 0.3
            assert 0 < (match.iou or 0) <= 1
    everything = match_instances(gt, perfect(gt)).per_instance
    assert all(match.iou == pytest.approx(1.0) for match in everything if match.scored)


def test_unknown_iou_type_and_missing_box() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    with pytest.raises(ValueError, match="iou_type: 'mask'"):
        match_instances(gt, [], iou_type="mask")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="entry 0: field 'bbox' is missing"):
        match_instances(gt, [{**detection((0, 0, 10, 10)), "bbox": None}])
    with pytest.raises(ValueError, match="annotation 1: field 'bbox' is missing"):
        match_instances(truth({**annotation(1, (0, 0, 10, 10)), "bbox": None}), [])
