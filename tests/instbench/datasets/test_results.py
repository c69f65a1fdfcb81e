from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from instbench.datasets.problems import Severity
from instbench.datasets.results import check_results
from tests.instbench.datasets.test_validation import json_values
from tests.instbench.layouts.builders import annotation, coco

GOOD: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
RLE = {"size": [60, 80], "counts": [4800]}


def test_good_results_pass() -> None:
    truth = coco(annotation(1))
    mask = {"image_id": 1, "category_id": 7, "segmentation": RLE, "score": 1}
    assert check_results([GOOD, mask], truth) == []
    assert check_results([]) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_id": None}, "image_id: is missing"),
        ({"image_id": 2}, "image_id: 2 is not in images of the annotations; map the ids"),
        ({"category_id": "1"}, "category_id: must be an integer"),
        ({"category_id": 2}, "category_id: 2 is not in categories"),
        ({"score": None}, "score: is missing"),
        ({"score": float("nan")}, "score: must be a finite number, not nan"),
        ({"score": float("inf")}, "score: must be a finite number, not inf"),
        ({"score": 10**400}, "score: must be a finite number"),
        ({"score": "0.5"}, "score: must be a finite number, not '0.5'"),
        ({"bbox": None}, "bbox: is missing; a detection needs a bbox or a segmentation"),
        ({"bbox": [1, 2, 3]}, "bbox: must be finite [x, y, width, height]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox: must be finite"),
        ({"segmentation": {"size": [80, 60], "counts": [4800]}}, "segmentation.size is [80, 60]"),
        ({"segmentation": {"size": [60, 80], "counts": [5]}}, "mask: run lengths cover 5 pixels"),
        ({"segmentation": {"size": [60, 80], "counts": [10**30]}}, "segmentation.counts must be"),
    ],
)
def test_errors_name_the_detection_and_the_field(change: dict[str, Any], expected: str) -> None:
    texts = [
        f"{problem.severity} {problem}"
        for problem in check_results([GOOD, GOOD | change], coco(annotation(1)))
    ]
    assert len(texts) == 1
    assert texts[0].startswith(f"error detection at position 1: {expected}")


def test_masks_are_checked_without_annotations() -> None:
    huge = {"size": [10**9, 10**9], "counts": [10**18]}
    bad = [{"size": 3, "counts": []}, {"size": [60, 80], "counts": "~~"}, huge]
    found = check_results([GOOD | {"segmentation": mask} for mask in [*bad, RLE, [[1, 1, 2, 2, 3, 1]]]])
    assert [problem.where for problem in found] == [
        "detection at position 0: segmentation.size",
        "detection at position 1",
        "detection at position 2",
    ]


def test_empty_boxes_are_warnings() -> None:
    (problem,) = check_results([GOOD | {"bbox": [1, 2, 0, 4]}])
    assert problem.severity is Severity.WARNING
    assert str(problem) == "detection at position 0: bbox: zero-area box [1, 2, 0, 4]; it can match nothing"


@given(json_values, json_values)
def test_any_json_is_checked_without_a_crash(value: Any, truth: Any) -> None:
    check_results(value)
    check_results([value, GOOD | {"segmentation": value}], {"images": truth, "categories": [truth]})
    for field in GOOD:
        check_results([GOOD | {field: value}], coco(annotation(1)))
