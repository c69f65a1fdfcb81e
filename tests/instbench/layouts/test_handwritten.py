from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instbench.errors import InputError
from instbench.layouts import layout_to_json
from instbench.layouts.handwritten import LIMITS, layout_from_object, read_layout
from instbench.layouts.rle import decode, encode, to_coco


def short(**changes: Any) -> dict[str, Any]:
    one = {"phrase": "a red circle", "box": [10, 20, 50, 40]}
    return {"caption": "c", "units": "pixels", "width": 100, "height": 80, "instances": [one]} | changes


def demo(**changes: Any) -> dict[str, Any]:
    return {"caption": "c", "width": 200, "height": 100, "annos": [{"caption": "a dog", **changes}]}


def write(folder: Path, content: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_pixels_become_relative():
    one = layout_from_object(short()).instances[0]
    assert one.box_xyxy == (0.1, 0.25, 0.5, 0.5)
    assert (one.category, one.mask, one.point_xy) == ("a red circle", None, None)


def test_all_formats_of_the_short_form():
    record = {
        "phrase": "a cup",
        "category": "cup",
        "color": "red",
        "box": [0.1, 0.1, 0.5, 0.5],
        "point": [0.3, 0.3],
        "scribble": [[0.1, 0.2], [0.3, 0.4]],
        "mask": [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.1, 0.5]],
    }
    layout = layout_from_object({"caption": "c", "units": "relative", "instances": [record]})
    one = layout.instances[0]
    assert (layout.source_width, layout.source_height) == (512, 512)
    assert one.scribble_xy == ((0.1, 0.2), (0.3, 0.4))
    assert one.color == "red"
    assert one.mask is not None
    inside = decode(one.mask)
    assert inside[100, 100]
    assert not inside[300, 300]
    assert inside.mean() == pytest.approx(0.16, abs=0.002)
    assert one.mask_points_xy is not None


def test_demo_form():
    mask = np.zeros((100, 200), dtype=bool)
    mask[20:60, 40:120] = True
    layout = layout_from_object(
        demo(
            bbox=[40, 20, 80, 40], mask=to_coco(encode(mask)), point=[80, 40], scribble=[[40, 20], [119, 59]]
        )
    )
    one = layout.instances[0]
    assert one.box_xyxy == (0.2, 0.2, 0.6, 0.6)
    assert one.point_xy == (0.4, 0.4)
    assert one.scribble_xy == ((0.2, 0.2), (0.595, 0.59))
    assert one.mask is not None
    assert (decode(one.mask) == mask).all()


def test_demo_form_takes_what_the_published_files_hold():
    one = layout_from_object(demo(bbox=[189, 51, 138, 60], mask=[], category_name="")).instances[0]
    assert one.box_xyxy == (0.945, 0.51, 1.0, 1.0)
    assert (one.mask, one.category) == (None, "a dog")
    assert layout_from_object(demo(point=[20.5, 30])).instances[0].box_xyxy is None


def test_our_own_form_is_read_back():
    layout = layout_from_object(short())
    assert layout_from_object(layout_to_json(layout)) == layout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "one JSON object"),
        ({"caption": "x"}, "instances: missing"),
        (short(units=None), "units:"),
        (short(unit="px"), "'unit': unknown field"),
        (short(width=0), "width: 0 must be a whole number"),
        (short(width=10**400), "width:"),
        (short(height=True), "height: True"),
        (short(caption=3), "caption: must be text, not a number"),
        (short(caption="x" * (LIMITS.text + 1)), "caption: 10001 characters"),
        (short(instances={}), "instances: must be a list"),
        (short(instances=[7]), "instances.0: must be an object"),
        (short(instances=[{"phrase": "a"}]), "instances.0: has no location"),
        (short(instances=[{"phrase": " ", "point": [1, 1]}]), "instances.0.phrase: is empty"),
        (short(instances=[{"phrase": "a", "box": [1, 2, 3]}]), "instances.0.box:"),
        (short(instances=[{"phrase": "a", "box": [1, 2, 300, 4]}]), "instances.0.box: 300 lies outside"),
        (short(instances=[{"phrase": "a", "box": [9, 2, 3, 4]}]), "instances.0.box: has no area"),
        (short(instances=[{"phrase": "a", "box": [0, 0, 10**400, 4]}]), "instances.0.box:"),
        (short(instances=[{"phrase": "a", "point": ["1", 2]}]), "instances.0.point:"),
        (short(instances=[{"phrase": "a", "scribble": [[1, 2]]}]), "instances.0.scribble:"),
        (short(instances=[{"phrase": "a", "scribble": [[1, 2], None]}]), "instances.0.scribble: holds null"),
        (short(instances=[{"phrase": "a", "mask": {"size": [1, 1], "counts": "1"}}]), "instances.0.mask: "),
        (short(instances=[{"phrase": "a", "mask": []}]), "instances.0.mask: is empty"),
        (short(instances=[{"phrase": "a", "bbox": [1, 2, 3, 4]}]), "instances.0.'bbox': unknown field"),
        (demo(bbox=[300, 2, 3, 4]), "annos.0.bbox: lies outside"),
        (demo(bbox=[3, 2, 0, 4]), "annos.0.bbox: has no area"),
        (demo(caption=None, point=[1, 1]), "annos.0.caption: must be text"),
        (short(instances=[{"phrase": "a", "point": [1, 1]}] * 257), "instances: 257 entries"),
        ('{"caption": NaN}', "NaN is no JSON number"),
        ('{"caption": "a", "caption": "b"}', "'caption': stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 14 + "]" * 14, "nested too deeply"),
        ('{"width": ' + "9" * 5000 + "}", "no usable JSON"),
        ('{"width": ', "no valid JSON at line 1"),
    ],
)
def test_bad_files_are_one_line_with_file_and_field(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_layout(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


def test_overflowing_numbers_are_refused(tmp_path):
    path = write(tmp_path, json.dumps(short()).replace("50", "1e999"))
    with pytest.raises(InputError, match=r"instances\.0\.box"):
        read_layout(path)


def test_missing_folder_and_large_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_layout(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_layout(tmp_path)
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(LIMITS.file_bytes + 1)
    with pytest.raises(InputError, match="more than 16 MiB"):
        read_layout(large)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=5), child, max_size=4),
    max_leaves=8,
)


@given(
    st.sampled_from(["caption", "units", "width", "height", "instances"]),
    st.sampled_from(["phrase", "box", "point", "scribble", "mask", "category"]),
    json_values,
    st.booleans(),
)
def test_any_value_is_read_or_refused_with_one_error(field, inner, value, deep):
    record = short()
    if deep:
        record["instances"][0][inner] = value
    else:
        record[field] = value
    try:
        layout = layout_from_object(record)
    except InputError:
        return
    for instance in layout.instances:
        for number in instance.box_xyxy or ():
            assert 0.0 <= number <= 1.0
