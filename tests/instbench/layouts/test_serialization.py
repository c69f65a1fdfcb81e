from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instbench.errors import InputError
from instbench.layouts import (
    Condition,
    Instance,
    Layout,
    from_coco,
    layout_from_json,
    layout_to_json,
    read_jsonl,
    write_jsonl,
)
from instbench.layouts.rle import encode
from instbench.layouts.serialization import dumps
from tests.instbench.layouts.builders import annotation, coco, crowd, masks

numbers = st.floats(allow_nan=False, allow_infinity=False)
points = st.tuples(numbers, numbers)
optional_text = st.none() | st.text(max_size=8)
instances = st.builds(
    Instance,
    phrase=st.text(max_size=12),
    category=st.text(max_size=12),
    category_id=st.integers(0, 2**40),
    annotation_id=st.integers(0, 2**40),
    box_xyxy=st.none() | st.tuples(numbers, numbers, numbers, numbers),
    mask=st.none() | masks.map(encode),
    point_xy=st.none() | points,
    scribble_xy=st.none() | st.lists(points, max_size=3).map(tuple),
    mask_points_xy=st.none() | st.lists(points, max_size=3).map(tuple),
    color=optional_text,
    texture=optional_text,
    is_crowd=st.booleans(),
    is_ignored=st.booleans(),
    ignore_reason=optional_text,
    area=st.none() | numbers,
    frequency=st.none() | st.sampled_from("rcf"),
    condition=st.none() | st.sampled_from(Condition),
)
layouts = st.builds(
    Layout,
    image_key=st.from_regex(r"[a-z0-9_-][a-z0-9._-]{0,8}", fullmatch=True),
    dataset=st.text(max_size=8),
    image_id=st.integers(0, 2**40),
    caption=st.text(max_size=20),
    source_width=st.integers(1, 5000),
    source_height=st.integers(1, 5000),
    instances=st.lists(instances, max_size=3).map(tuple),
    source_path=optional_text,
    absent_category_ids=st.lists(st.integers(0, 2000), max_size=3).map(tuple),
    partial_category_ids=st.lists(st.integers(0, 2000), max_size=3).map(tuple),
)


@given(layouts)
@settings(max_examples=60, deadline=None)
def test_round_trip_is_exact(layout: Layout) -> None:
    text = dumps(layout)
    assert "\n" not in text
    again = layout_from_json(json.loads(text))
    assert again == layout
    assert dumps(again) == text


def test_files_round_trip_and_leave_nothing_else(tmp_path: Path) -> None:
    made = from_coco(coco(crowd(1), annotation(2), images=2))
    path = tmp_path / "run" / "layouts.jsonl"
    write_jsonl(made, path)
    assert read_jsonl(path) == made
    assert [item.name for item in path.parent.iterdir()] == ["layouts.jsonl"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "layouts.jsonl"
    (good,) = from_coco(coco(annotation(2)))
    write_jsonl([good], path)
    bad = Layout("b", "d", 2, "c", 8, 8, (Instance("p", "c", 1, 1, None, point_xy=(float("nan"), 0.0)),))
    with pytest.raises(InputError, match="layout b"):
        write_jsonl([good, bad], path)
    assert read_jsonl(path) == [good]
    assert len(list(tmp_path.iterdir())) == 1


def _record() -> dict[str, Any]:
    return json.loads(dumps(from_coco(coco(annotation(2)))[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version: 2"),
        ({"image_key": "../x"}, "image_key: '../x'"),
        ({"image_key": ".."}, "image_key"),
        ({"image_id": "1"}, "image_id: must be an integer"),
        ({"source_width": 0}, "source_width: must be an integer >= 1"),
        ({"caption": None}, "caption: must be text"),
        ({"surprise": 1}, "surprise: unknown field"),
        ({"absent_category_ids": [-1]}, "absent_category_ids: must be a list of ids"),
        ({"instances": {}}, "instances: must be a list"),
        ({"instances": [3]}, r"instances\[0\]: must be an object"),
    ],
)
def test_bad_layout_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layout_from_json(_record() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box_xyxy": [0, 0, 1]}, r"instances\[0\]\.box_xyxy"),
        ({"point_xy": [0, float("nan")]}, r"instances\[0\]\.point_xy"),
        ({"scribble_xy": [[0, 0], [1]]}, r"instances\[0\]\.scribble_xy\[1\]"),
        ({"is_crowd": 1}, r"instances\[0\]\.is_crowd"),
        ({"phrase": 3}, r"instances\[0\]\.phrase"),
        ({"color": 3}, r"instances\[0\]\.color"),
        ({"area": "big"}, r"instances\[0\]\.area"),
        ({"frequency": 3}, r"instances\[0\]\.frequency"),
        ({"condition": "depth"}, r"instances\[0\]\.condition: 'depth' must be one of"),
        ({"mask": {"size": [4, 4], "counts": "1"}}, r"instances\[0\]\.mask: run lengths cover 1 pixels"),
        ({"mask": {"size": [10**9, 10**9], "counts": "1"}}, "pixels a side"),
        ({"depth": 1}, r"instances\[0\]\.depth: unknown field"),
    ],
)
def test_bad_instance_fields_are_named(change: dict[str, Any], message: str) -> None:
    record = _record()
    record["instances"][0] |= change
    with pytest.raises(InputError, match=message):
        layout_from_json(record)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ('{"schema_version":1', "line 2: no valid JSON at column"),
        ("\n", "line 2: no valid JSON"),
        ("[1]\n", "line 2: a layout must be a JSON object"),
        ("[" * 100_000 + "\n", "line 2: JSON nested too deeply"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, tail: str, message: str) -> None:
    path = tmp_path / "layouts.jsonl"
    write_jsonl(from_coco(coco(annotation(2))), path)
    with path.open("a") as handle:
        handle.write(tail)
    with pytest.raises(InputError, match=message):
        read_jsonl(path)


def test_missing_twice_and_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_jsonl(tmp_path / "none.jsonl")
    layout = from_coco(coco(annotation(2)))[0]
    write_jsonl([layout, layout], tmp_path / "twice.jsonl")
    with pytest.raises(InputError, match="line 2: image_key: '000000000001' occurs twice"):
        read_jsonl(tmp_path / "twice.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_jsonl(tmp_path / "binary.jsonl")


def test_defaults_are_left_out() -> None:
    record = layout_to_json(Layout("a", "d", 1, "c", 8, 8, (Instance("p", "c", 1, 1, None),)))
    assert record["instances"] == [{"phrase": "p", "category": "c", "category_id": 1, "annotation_id": 1}]
    assert "source_path" not in record


def test_an_integer_without_end_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "layouts.jsonl"
    path.write_text('{"image_id": ' + "9" * 6000 + "}\n")
    with pytest.raises(InputError, match="line 1: no usable JSON"):
        read_jsonl(path)
