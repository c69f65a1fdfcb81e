from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instbench.datasets import Severity, check_annotations, check_captions
from instbench.datasets.validation import degenerate_box_reason, is_plain_relative_name
from instbench.errors import InputError
from instbench.layouts import from_coco
from tests.instbench.layouts.builders import annotation, captions, coco, crowd, square

NAN = float("nan")


def test_a_clean_file_has_no_problems() -> None:
    assert check_annotations(coco(annotation(1), crowd(2), images=2), rasterise=True) == []
    assert check_captions(captions("one"), image_ids=[1]) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": "7"}, "annotation at position 0: id: must be an integer from 0"),
        ({"id": True}, "annotation at position 0: id: must be an integer from 0"),
        ({"image_id": 5}, "annotation 1: image_id: 5 is not in images"),
        ({"image_id": None}, "annotation 1: image_id: is missing"),
        ({"category_id": 5}, "annotation 1: category_id: 5 is not in categories"),
        ({"bbox": [1, 2, 3]}, "annotation 1: bbox: must be [x, y, width, height]"),
        ({"bbox": [1, 2, 3, NAN]}, "annotation 1: bbox: holds NaN"),
        ({"bbox": None}, "annotation 1: bbox: must be"),
        ({"iscrowd": 2}, "annotation 1: iscrowd: must be 0 or 1"),
        ({"area": -1}, "annotation 1: area: must be a number >= 0"),
        ({"area": NAN}, "annotation 1: area: must be a number >= 0"),
        ({"attributes": ["red"]}, "annotation 1: attributes: must be an object"),
        ({"attributes": {"color": 3}}, "annotation 1: attributes.color: must be a word"),
        ({"captions": []}, "annotation 1: captions: must be non-empty texts"),
        (
            {"segmentation": {"size": [80, 60], "counts": [4800]}},
            "annotation 1: segmentation.size is [80, 60]",
        ),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "annotation 1: segmentation[0] has 5 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, NAN]]}, "annotation 1: segmentation[0] holds NaN"),
        ({"segmentation": 3}, "annotation 1: segmentation must be polygons or run lengths"),
    ],
)
def test_errors_name_annotation_and_field(change: dict[str, Any], expected: str) -> None:
    problems = check_annotations(coco(annotation(1, **change)), rasterise=True)
    errors = [str(problem) for problem in problems if problem.severity is Severity.ERROR]
    assert any(text.startswith(expected) for text in errors), errors


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bbox": [20, 10, 0, 10]}, "annotation 1: bbox: zero-area box"),
        ({"bbox": [20, 10, 5, -1]}, "annotation 1: bbox: zero-area box"),
        ({"bbox": [90, 10, 5, 5]}, "annotation 1: bbox: box outside the image"),
        ({"bbox": [70, 10, 20, 5]}, "annotation 1: bbox: [70, 10, 20, 5] reaches 10 pixels out"),
        (
            {"segmentation": [[1, 1, 2, 2]]},
            "annotation 1: segmentation: has parts of fewer than 3 points (2)",
        ),
        ({"segmentation": [[5, 5, 5, 5, 5, 5]]}, "annotation 1: segmentation: empty mask"),
    ],
)
def test_degenerate_instances_are_warnings(change: dict[str, Any], expected: str) -> None:
    problems = check_annotations(coco(annotation(1, **change)), rasterise=True)
    assert problems
    assert {problem.severity for problem in problems} == {Severity.WARNING}
    assert any(str(problem).startswith(expected) for problem in problems), list(map(str, problems))


@pytest.mark.parametrize(
    ("part", "record", "expected"),
    [
        ("images", {"id": 1, "width": 8, "height": 8}, "image 1: id: occurs twice"),
        ("images", {"id": 2, "width": 0, "height": 8}, "image 2: width, height: must be integers"),
        (
            "images",
            {"id": 2, "width": 8, "height": 8, "file_name": "../a.png"},
            "image 2: file_name: must be",
        ),
        (
            "images",
            {"id": 2, "width": 8, "height": 8, "file_name": "/etc/passwd"},
            "image 2: file_name: must be",
        ),
        ("images", 3, "images[1]: must be an object"),
        ("categories", {"id": 7, "name": "fox"}, "category 7: id: occurs twice"),
        ("categories", {"id": 8, "name": "cat"}, "category 8: name: 'cat' names two categories"),
        ("categories", {"id": 8, "name": ""}, "category 8: name: must be a non-empty text"),
        ("annotations", "text", "annotations[1]: must be an object"),
        ("annotations", annotation(1), "annotation 1: id: occurs twice"),
    ],
)
def test_lists_are_checked(part: str, record: Any, expected: str) -> None:
    data = copy.deepcopy(coco(annotation(1)))
    data[part].append(record)
    texts = [str(problem) for problem in check_annotations(data)]
    assert any(text.startswith(expected) for text in texts), texts


def test_all_problems_are_listed_at_once() -> None:
    data = coco(annotation(1, image_id=9), annotation(2, bbox=[0, 0, NAN, 1]), annotation(3, category_id=3))
    wheres = [problem.where for problem in check_annotations(data)]
    assert wheres == ["annotation 1: image_id", "annotation 2: bbox", "annotation 3: category_id"]


def test_captions_are_checked() -> None:
    bad = {
        "annotations": [
            {"id": 1, "image_id": 1, "caption": 3},
            {"id": 1, "image_id": "x", "caption": "a"},
            {"id": 3, "image_id": 2, "caption": " "},
        ]
    }
    texts = [f"{problem.severity} {problem}" for problem in check_captions(bad, image_ids=[1, 2])]
    assert texts[0] == "error caption 1: id: occurs twice; ids must be unique"
    assert texts[1].startswith("error caption 1: caption: must be text")
    assert texts[2].startswith("error caption 1: image_id: must be an integer")
    assert texts[3].startswith("warning caption 3: caption: is empty")
    assert texts[4].startswith("warning captions: 2 images have no caption (1, 2)")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b", "/a", "a//b", "a/", "C:x", "a\\b", "~/a", "a\nb", "a\x00", None, 3]
)
def test_tricky_file_names_are_refused(name: Any) -> None:
    assert not is_plain_relative_name(name)


def test_plain_file_names_pass() -> None:
    assert is_plain_relative_name("a.png")
    assert is_plain_relative_name("val2017/000 1.jpg")


@given(st.tuples(*[st.floats(-100, 100)] * 4))
@settings(deadline=None)
def test_boxes_are_degenerate_exactly_if_nothing_of_them_is_visible(box: tuple[float, ...]) -> None:
    x, y, width, height = box
    visible_width = min(x + width, 50) - max(x, 0)
    visible_height = min(y + height, 40) - max(y, 0)
    visible = width > 0 and height > 0 and visible_width > 0 and visible_height > 0
    assert (degenerate_box_reason(box, 50, 40) is None) == visible


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(annotation(1))), json_values)
@settings(max_examples=150, deadline=None)
def test_any_value_in_any_field_is_reported_or_works(field: str, value: Any) -> None:
    data = coco(annotation(1, **{field: value}), annotation(2, segmentation=[square(1, 1, 5)]))
    errors = [p for p in check_annotations(data) if p.severity is Severity.ERROR]
    if errors:
        with pytest.raises(InputError) as caught:
            from_coco(data)
        assert "\n" not in str(caught.value)
    else:
        assert len(from_coco(data)[0].instances) == 2


@given(json_values)
@settings(max_examples=100, deadline=None)
def test_any_json_is_checked_without_a_crash(value: Any) -> None:
    assert all(str(problem) for problem in check_annotations(value))
    assert all(str(problem) for problem in check_annotations({"images": value, "annotations": [value]}))
    lists = {"images": [value], "annotations": [value], "categories": [value]}
    assert check_annotations(lists, rasterise=True)
    assert check_captions({"annotations": [value]})
