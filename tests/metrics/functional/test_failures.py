from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import FailureKind, classify_failures, failure_gains
from metrics.functional.attribute_binding import AttributeInstance
from tests.metrics.builders import annotation, detection, perfect, random_pair, truth

LEFT, RIGHT = (2, 2, 12, 12), (30, 20, 12, 12)


def kinds(gt: dict, detections: list[dict], **options: object) -> dict[int, FailureKind | None]:
    result = classify_failures(gt, detections, **options)  # type: ignore[arg-type]
    return {row.annotation_id: row.kind for row in result.per_instance}


def seen(
    identifier: int, predicted: str, asked: str = "red", leaked: tuple[int, ...] = ()
) -> AttributeInstance:
    return AttributeInstance(1, identifier, asked, predicted, predicted == asked, leaked)


def test_each_kind() -> None:
    gt = truth(annotation(1, LEFT), annotation(2, RIGHT, category=2))
    answer = detection(RIGHT, category=2)
    cases = {
        FailureKind.CORRECT: [detection(LEFT)],
        FailureKind.MISSING: [],
        FailureKind.MISPLACED: [detection((9, 2, 12, 12))],
        FailureKind.WRONG_CLASS: [detection(LEFT, category=3)],
        FailureKind.DUPLICATED: [detection((2, 2, 12, 8)), detection((2, 10, 12, 6), 0.8)],
    }
    for kind, found in cases.items():
        assert kinds(gt, [*found, answer]) == {1: kind, 2: FailureKind.CORRECT}, kind
    # Below the threshold nothing counts; far away is as good as not there, but counted apart.
    assert kinds(gt, [detection(LEFT, 0.2), answer])[1] is FailureKind.MISSING
    result = classify_failures(gt, [detection((45, 2, 8, 8)), answer])
    assert result.counts[FailureKind.MISSING] == result.n_extra == 1


def test_the_thresholds_themselves_count() -> None:
    gt = truth(annotation(1, (2, 2, 10, 10)))
    half, tenth = (2, 2, 10, 5), (2, 2, 10, 1)
    assert kinds(gt, [detection(half)])[1] is FailureKind.CORRECT
    assert kinds(gt, [detection(half, category=3)])[1] is FailureKind.WRONG_CLASS
    assert kinds(gt, [detection(tenth)])[1] is FailureKind.MISPLACED
    assert kinds(gt, [detection((2, 2, 10, 10)), detection(tenth, 0.8)])[1] is FailureKind.DUPLICATED
    # Of two that lie on each other with an IoU of a half, one is not counted as a second object.
    assert kinds(gt, [detection((2, 2, 10, 10)), detection(half, 0.8)])[1] is FailureKind.CORRECT


def test_one_object_for_two_neighbours_is_merged() -> None:
    gt = truth(annotation(1, (2, 2, 10, 10)), annotation(2, (12, 2, 10, 10)), annotation(3, RIGHT))
    whole = detection((2, 2, 20, 10))
    result = classify_failures(gt, [whole, detection(RIGHT)])
    # The object overlaps each by exactly a half, so it even answers one of them.
    by_id = {row.annotation_id: row for row in result.per_instance}
    assert sorted(str(by_id[number].kind) for number in (1, 2)) == ["correct", "merged"]
    wider = detection((1, 1, 22, 12))
    result = classify_failures(gt, [wider, detection(RIGHT)])
    assert [row.kind for row in result.per_instance] == [FailureKind.MERGED] * 2 + [FailureKind.CORRECT]
    assert [row.merged_with for row in result.per_instance] == [(2,), (1,), ()]
    assert result.n_extra == 0
    # One object on one of two overlapping places is no merger.
    nested = truth(annotation(1, (2, 2, 20, 20)), annotation(2, (4, 4, 8, 8)))
    assert kinds(nested, [detection((2, 2, 20, 20))])[2] is FailureKind.MISSING


def test_attributes_come_after_the_place() -> None:
    gt = truth(annotation(1, LEFT), annotation(2, RIGHT))
    found = [detection(LEFT), detection(RIGHT)]
    assert kinds(gt, found, attributes=[seen(1, "blue"), seen(2, "red")]) == {
        1: FailureKind.WRONG_ATTRIBUTE,
        2: FailureKind.CORRECT,
    }
    leaked = kinds(gt, found, attributes=[seen(1, "blue", leaked=(2,)), seen(2, "blue", "blue")])
    assert leaked[1] is FailureKind.LEAKED_ATTRIBUTE
    # What is not there has no attribute.
    missing = [AttributeInstance(1, 1, "red", None, False, (), "missing object")]
    assert kinds(gt, found[1:], attributes=missing)[1] is FailureKind.MISSING


def test_where_the_size_is_free_another_rule_answers() -> None:
    gt = truth(annotation(1, LEFT), annotation(2, RIGHT))
    large = [detection((0, 0, 40, 30))]
    assert kinds(gt, large, located_by={1: 0, 2: None})[1] is FailureKind.CORRECT
    # The others are found as usual.
    assert kinds(gt, [*large, detection(RIGHT)], located_by={1: 0}) == dict.fromkeys(
        (1, 2), FailureKind.CORRECT
    )
    assert kinds(gt, large)[1] is FailureKind.MISPLACED


def test_crowds_are_not_scored_and_what_lies_on_them_is_not_extra() -> None:
    gt = truth(annotation(1, LEFT), annotation(2, (25, 5, 30, 30), iscrowd=1))
    result = classify_failures(gt, [detection(LEFT), detection((30, 10, 5, 5)), detection((2, 25, 5, 5))])
    assert [row.kind for row in result.per_instance] == [FailureKind.CORRECT, None]
    assert (result.n_scored, result.n_unscored, result.reasons) == (1, 1, {"crowd": 1})
    assert result.n_extra == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), masks=st.booleans())
def test_every_requested_instance_has_one_kind_whatever_the_order(seed: int, masks: bool) -> None:
    gt, detections = random_pair(seed)
    options = {"iou_type": "segm" if masks else "bbox"}
    result = classify_failures(gt, detections, **options)  # type: ignore[arg-type]
    assert sum(result.counts.values()) == result.n_scored
    assert result.n_scored + result.n_unscored == len(gt["annotations"])
    used = [row.detection for row in result.per_instance if row.detection is not None]
    merged = [row.detection for row in result.per_instance if row.kind is FailureKind.MERGED]
    assert len(set(used)) >= len(used) - len(merged)
    # Scores are tied on purpose; equal detections are interchangeable, so kinds cannot depend on the order.
    rng = np.random.default_rng(seed)
    shuffled = [detections[index] for index in rng.permutation(len(detections))]
    reversed_images = {**gt, "images": gt["images"][::-1]}
    again = {
        row.annotation_id: row.kind
        for row in classify_failures(reversed_images, shuffled, **options).per_instance
    }  # type: ignore[arg-type]
    assert again == {row.annotation_id: row.kind for row in result.per_instance}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_perfect_detections_have_no_failures_and_removed_ones_are_missing(seed: int) -> None:
    gt, _ = random_pair(seed, crowds=False)
    found = perfect(gt)
    for one in found:
        one["score"] = 0.9
    result = classify_failures(gt, found)
    assert result.counts[FailureKind.CORRECT] == result.n_scored
    gains = failure_gains(gt, found, result)
    assert set(gains.gains.values()) == {0.0}
    if gt["annotations"]:
        assert gains.ap50 == pytest.approx(1.0)
        result = classify_failures(gt, [])
        assert result.counts[FailureKind.MISSING] == result.n_scored
        assert failure_gains(gt, [], result).gains[FailureKind.MISSING] == pytest.approx(1.0)


def test_gains_say_what_each_fix_is_worth() -> None:
    gt = truth(
        annotation(1, LEFT),
        annotation(2, RIGHT),
        annotation(3, LEFT, image=2),
        annotation(4, RIGHT, image=2),
        images=2,
    )
    found = [
        detection((9, 2, 12, 12)),  # misplaced
        detection(RIGHT),
        detection(LEFT, image=2, category=2),  # wrong class
    ]
    result = classify_failures(gt, found)
    gains = failure_gains(gt, found, result)
    assert gains.fixed == pytest.approx(1.0)
    assert gains.ap50 is not None
    for kind in (FailureKind.MISSING, FailureKind.MISPLACED, FailureKind.WRONG_CLASS):
        assert gains.gains[kind] > 0.1, kind
    assert gains.gains[FailureKind.MERGED] == gains.gains[FailureKind.DUPLICATED] == 0
    # An object of the wrong colour is no right answer.
    red = [detection(box, image=image) for image in (1, 2) for box in (LEFT, RIGHT)]
    attributes = [seen(1, "blue"), seen(2, "red")]
    result = classify_failures(gt, red, attributes=attributes)
    gains = failure_gains(gt, red, result)
    assert gains.ap50 == pytest.approx(0.75, abs=0.01)
    assert gains.gains[FailureKind.WRONG_ATTRIBUTE] == pytest.approx(0.25, abs=0.01)


def test_merged_and_duplicated_objects_are_put_right() -> None:
    gt = truth(annotation(1, (2, 2, 10, 10)), annotation(2, (12, 2, 10, 10)), annotation(3, RIGHT))
    found = [detection((1, 1, 22, 12)), detection((30, 20, 12, 8), 0.8), detection((30, 28, 12, 4), 0.9)]
    result = classify_failures(gt, found)
    assert result.counts[FailureKind.MERGED] == 2
    assert result.counts[FailureKind.DUPLICATED] == 1
    gains = failure_gains(gt, found, result)
    assert gains.fixed == pytest.approx(1.0)
    assert gains.gains[FailureKind.MERGED] > 0.3
    assert gains.gains[FailureKind.DUPLICATED] > 0


def test_bad_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"near_iou: 0\.6 must be above 0 and at most located_iou"):
        classify_failures(truth(), [], near_iou=0.6)


def test_nothing_asked() -> None:
    result = classify_failures(truth(), [])
    assert (result.n_scored, result.n_extra) == (0, 0)
    assert failure_gains(truth(), [], result).ap50 is None
