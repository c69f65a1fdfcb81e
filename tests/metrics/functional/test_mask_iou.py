from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import mask_iou
from metrics.functional.mask_iou import NO_DETECTION_MASKS
from tests.metrics.builders import annotation, detection, perfect, random_pair, truth


def test_by_hand() -> None:
    gt = truth(
        annotation(1, (0, 0, 10, 10)),
        annotation(2, (30, 0, 10, 10)),
        annotation(3, (0, 20, 10, 10), image=2, category=2),
        annotation(4, (30, 20, 10, 10), image=2, iscrowd=1),
        annotation(5, (30, 20, 10, 10), image=2, segmentation=None),
        images=3,
    )
    result = mask_iou(
        gt, [detection((0, 0, 10, 5)), detection((30, 0, 10, 10)), detection((0, 20, 10, 10), image=2)]
    )
    assert result.value == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert result.per_image == {1: pytest.approx(0.75), 2: 0.0}
    assert (result.n_scored, result.n_unscored, result.n_missing) == (3, 2, 1)
    assert result.reasons == {"crowd": 1, "no mask": 1}


def test_one_detection_serves_one_instance() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (0, 0, 10, 10)))
    result = mask_iou(gt, [detection((0, 0, 10, 10))])
    assert result.value == pytest.approx(0.5)


def test_low_scores_do_not_count() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    assert mask_iou(gt, perfect(gt, score=0.29)).value == 0.0
    assert mask_iou(gt, perfect(gt, score=0.3)).value == pytest.approx(1.0)
    assert mask_iou(gt, perfect(gt, score=0.29), score_threshold=0.2).value == pytest.approx(1.0)


def test_nothing_requested_and_no_masks() -> None:
    empty = mask_iou(truth(), [])
    assert (empty.value, empty.n_scored, empty.n_unscored) == (None, 0, 0)
    gt = truth(annotation(1, (0, 0, 10, 10)))
    boxes = [{**detection((0, 0, 10, 10)), "segmentation": None}]
    result = mask_iou(gt, boxes)
    assert (result.value, result.n_scored, result.reasons) == (None, 0, {NO_DETECTION_MASKS: 1})
    with pytest.raises(ValueError, match="entry 1: has no segmentation although others have"):
        mask_iou(gt, [detection((0, 0, 10, 10)), *boxes])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_bounds_and_perfection(seed: int) -> None:
    gt, detections = random_pair(seed)
    result = mask_iou(gt, detections)
    assert result.n_scored + result.n_unscored == len(gt["annotations"])
    if result.value is None:
        assert result.n_scored == 0
        return
    assert 0 <= result.value <= 1
    assert mask_iou(gt, perfect(gt)).value == pytest.approx(1.0)
    assert mask_iou(gt, []).value == 0.0
    assert np.mean([row.iou for row in result.per_instance if row.iou is not None]) == pytest.approx(
        result.value
    )
    assert (mask_iou(gt, [*detections, *perfect(gt)]).value or 0) >= result.value - 1e-9
