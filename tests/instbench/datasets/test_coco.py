from __future__ import annotations

import json
from pathlib import Path

import pytest

from instbench.datasets import CocoAnnotations, CocoCaptions
from instbench.errors import InputError
from tests.instbench.layouts.builders import annotation, captions, coco, crowd


def test_records_are_indexed_by_image() -> None:
    data = coco(annotation(5, 2), annotation(3, 2), crowd(4, 1), images=3)
    read = CocoAnnotations.read(data)
    assert list(read.images) == [1, 2, 3]
    assert [item.id for item in read.by_image[2]] == [5, 3]  # file order
    assert read.by_image[3] == ()
    assert read.by_image[1][0].is_crowd
    assert read.categories == {1: "cat", 7: "dog"}
    assert read.images[1].file_name == "1.png"
    assert read.annotations[0].bbox_xywh == (20.0, 10.0, 10.0, 10.0)


def test_lvis_style_images_take_their_name_from_the_address() -> None:
    data = coco(annotation(1))
    del data["images"][0]["file_name"]
    assert CocoAnnotations.read(data).images[1].file_name is None
    data["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/000000000001.jpg"
    assert CocoAnnotations.read(data).images[1].file_name == "000000000001.jpg"
    data["images"][0]["coco_url"] = "http://images.cocodataset.org/.."
    assert CocoAnnotations.read(data).images[1].file_name is None


def test_captions_keep_their_order_and_drop_empty_ones() -> None:
    read = CocoCaptions.read(captions("first", "  ", "second"))
    assert read.by_image == {1: ("first", "second")}


def test_the_first_error_is_raised_with_the_number_of_others(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(coco(annotation(1, category_id=9), annotation(1))))
    with pytest.raises(InputError) as caught:
        CocoAnnotations.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: annotation 1: id: occurs twice")
    assert "and 1 more" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', "no valid JSON at line 1, column 13"),
        (b"\xff\xff\xff\xff", "UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "is a list"),
        (b"3", "must be a COCO annotation object"),
        (b"{}", "images: is missing"),
        (b'{"images": {}, "annotations": [], "categories": []}', "images: must be a list"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        CocoAnnotations.read(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        CocoAnnotations.read(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        CocoCaptions.read(tmp_path)
