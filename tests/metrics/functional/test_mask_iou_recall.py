from __future__ import annotations

import numpy as np
import pytest

from metrics import mask_iou, mask_iou_recall
from tests.metrics.builders import annotation, detection, perfect, random_pair, truth

LEFT, RIGHT = (2, 2, 12, 12), (30, 20, 12, 12)


def test_the_first_of_its_class_is_taken_not_the_best() -> None:
    gt = truth(annotation(1, LEFT), annotation(2, RIGHT), annotation(3, LEFT, category=2))
    found = [detection(RIGHT, 0.6), detection(LEFT, 0.9), detection(LEFT, 0.4, category=2)]
    result = mask_iou_recall(gt, found)
    assert [row.detection for row in result.per_instance] == [0, 1, None]
    assert [row.iou for row in result.per_instance] == [0.0, 0.0, 0.0]
    assert (result.value, result.n_scored, result.n_missing) == (0.0, 3, 1)
    assert mask_iou_recall(gt, found[::-1], score_threshold=0.3).value == pytest.approx(1.0)
    assert mask_iou_recall(gt, found[::-1], score_threshold=0.4).n_missing == 0  # the threshold itself counts


def test_images_weigh_the_same() -> None:
    gt = truth(
        annotation(1, LEFT),
        annotation(2, RIGHT),
        annotation(3, LEFT, image=2),
        annotation(4, RIGHT, iscrowd=1),
        images=2,
    )
    result = mask_iou_recall(gt, [detection(LEFT, image=2)])
    assert result.value == pytest.approx(0.5)
    assert result.per_image == {1: 0.0, 2: pytest.approx(1.0)}
    assert (result.n_scored, result.n_unscored, result.reasons) == (3, 1, {"crowd": 1})


def test_equals_the_usual_iou_where_cells_are_pixels() -> None:
    gt = truth(annotation(1, LEFT))
    gt["images"][0].update(height=40, width=40)
    size = {"height": 40, "width": 40}
    from tests.metrics.builders import rectangle

    gt["annotations"][0]["segmentation"] = rectangle(*LEFT, **size)
    found = [detection(LEFT, segmentation=rectangle(5, 4, 12, 9, **size))]
    assert mask_iou_recall(gt, found, size=40).value == pytest.approx(mask_iou(gt, found).value)


def test_perfect_and_empty() -> None:
    gt, _ = random_pair(3, crowds=False)
    assert mask_iou_recall(gt, perfect(gt)).value is not None
    assert mask_iou_recall(gt, []).value == 0.0
    assert mask_iou_recall(truth(), []).value is None
    assert np.isclose(mask_iou_recall(truth(annotation(1, LEFT)), [detection(LEFT)]).value, 1.0)
    with pytest.raises(ValueError, match="size: 0 must be at least 1"):
        mask_iou_recall(truth(), [], size=0)
