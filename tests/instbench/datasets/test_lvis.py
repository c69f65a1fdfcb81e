from __future__ import annotations

from typing import Any

import pytest

from instbench.datasets import CocoAnnotations
from instbench.datasets.lvis import add_federated_fields, image_file_name, is_lvis
from instbench.errors import InputError
from instbench.layouts import from_coco
from instbench.layouts.ground_truth import canvas_ground_truth
from tests.instbench.datasets.fetching.world import lvis_content
from tests.instbench.layouts.builders import annotation, coco


def test_lvis_is_told_by_its_fields_of_images() -> None:
    assert is_lvis(lvis_content())
    assert not is_lvis(coco(annotation(1)))
    assert not is_lvis([])
    assert not is_lvis({"images": 3})


def test_federated_fields_and_frequencies_are_kept() -> None:
    read = CocoAnnotations.read(lvis_content())
    assert read.frequencies == {1: "f", 2: "r"}
    assert read.images[2].neg_category_ids == (2,)
    assert read.images[3].not_exhaustive_category_ids == (1,)
    assert not any(record.is_crowd for record in read.annotations)
    plain = CocoAnnotations.read(coco(annotation(1)))
    assert plain.frequencies == {}
    assert plain.images[1].neg_category_ids == ()


def test_names_keep_the_folder_of_the_address() -> None:
    read = CocoAnnotations.read(lvis_content())
    assert read.images[2].file_name == "val2017/000000000002.jpg"
    assert read.images[3].file_name == "train2017/000000000003.jpg"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"coco_url": "http://host/val2017/1.jpg", "file_name": "COCO_val2014_1.jpg"}, "val2017/1.jpg"),
        ({"coco_url": "http://host/a/val2017/1.jpg"}, "val2017/1.jpg"),
        ({"coco_url": "http://host/1.jpg"}, "1.jpg"),
        ({"file_name": "val2017/1.jpg"}, "val2017/1.jpg"),
        ({"coco_url": "http://host/../../etc/passwd"}, "etc/passwd"),
        ({"coco_url": "http://host/val2017/.."}, None),
        ({"coco_url": "http://host/val2017/a:b"}, None),
        ({"coco_url": "http://host"}, None),
        ({"coco_url": 3}, None),
        ({"file_name": "/etc/passwd"}, None),
        ({}, None),
    ],
)
def test_names_are_safe(record: dict[str, Any], expected: str | None) -> None:
    assert image_file_name(record, lvis=True) == expected


def test_layouts_come_from_lvis_files() -> None:
    layouts = from_coco(lvis_content(), dataset="lvis-v1-val")
    assert [layout.image_id for layout in layouts] == [2, 3]
    assert layouts[0].instances[0].phrase == "cat"


def test_the_metric_gets_what_it_needs() -> None:
    read = CocoAnnotations.read(lvis_content())
    truth = add_federated_fields(canvas_ground_truth(from_coco(read, image_ids=[3]), 64), read)
    assert [image["id"] for image in truth["images"]] == [3]
    assert truth["images"][0]["neg_category_ids"] == [2]
    assert truth["images"][0]["not_exhaustive_category_ids"] == [1]
    assert truth["images"][0]["width"] == 64
    assert truth["categories"] == [
        {"id": 1, "name": "cat", "frequency": "f"},
        {"id": 2, "name": "car_(automobile)", "frequency": "r"},
    ]


def test_a_federated_field_that_is_missing_is_an_error() -> None:
    data = lvis_content()
    del data["images"][1]["neg_category_ids"]
    with pytest.raises(
        InputError, match="image 3: neg_category_ids: must be a list of category ids, not None"
    ):
        CocoAnnotations.read(data)
