from __future__ import annotations

import pytest

from metrics import AttributeObservation, attribute_binding, paper_attribute_binding

LABELS = ("red", "green", "blue")


def seen(image_id, annotation_id, asked, best, similarity=0.25, **changes) -> AttributeObservation:
    scores = None if best is None else [0.1 + 0.2 * (label == best) for label in LABELS]
    fields = {
        "image_id": image_id,
        "annotation_id": annotation_id,
        "asked": asked,
        "found": True,
        "scores": scores,
        "local_similarity": None if best is None else similarity,
        **changes,
    }
    return AttributeObservation(**fields)


def test_both_numbers_are_means_of_image_means():
    observations = [
        seen(1, 10, "red", "red", 0.4),
        seen(1, 11, "red", "blue", 0.1),
        seen(1, 12, "blue", "blue", 0.1),
        seen(2, 20, "green", "red", 0.3),
    ]
    result = paper_attribute_binding(observations, LABELS)
    assert result.accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert result.local_similarity == pytest.approx((0.2 + 0.3) / 2)
    assert result.per_image == {1: pytest.approx((2 / 3, 0.2)), 2: pytest.approx((0.0, 0.3))}
    assert (result.n_scored, result.n_unscored) == (4, 0)
    assert attribute_binding(observations, LABELS).accuracy == 0.5  # strict: every instance weighs the same


def test_empty_crops_are_dropped_and_so_are_images_without_any():
    observations = [
        seen(1, 10, "red", "red"),
        seen(1, 11, "red", None),
        seen(2, 20, "red", None),
        seen(3, 30, None, "red"),
        seen(3, 31, "mauve", "red"),
    ]
    result = paper_attribute_binding(observations, LABELS)
    assert result.accuracy == 1.0
    assert list(result.per_image) == [1]
    assert (result.n_scored, result.n_unscored) == (1, 4)
    assert result.reasons == {
        "its crop was not scored": 2,
        "no attribute asked": 1,
        "the asked attribute is not among the labels": 1,
    }


def test_missing_and_ignored_objects_are_scored_on_the_background():
    observations = [
        seen(1, 10, "red", "red", found=False),
        seen(1, 11, "red", "blue", ignored="crowd"),
    ]
    result = paper_attribute_binding(observations, LABELS)
    assert (result.accuracy, result.n_scored) == (0.5, 2)
    assert [row.predicted for row in result.per_instance] == ["red", "blue"]


def test_nothing_to_score_is_none():
    result = paper_attribute_binding([], LABELS)
    assert (result.accuracy, result.local_similarity, result.n_scored) == (None, None, 0)


@pytest.mark.parametrize("similarity", [None, float("nan")])
def test_a_crop_without_similarity_is_refused(similarity):
    bad = seen(1, 10, "red", "red", local_similarity=similarity)
    with pytest.raises(ValueError, match="annotation 10: local_similarity"):
        paper_attribute_binding([bad], LABELS)
