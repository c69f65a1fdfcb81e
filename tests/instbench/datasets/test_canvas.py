from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instbench.datasets.canvas import scale_annotations
from instbench.errors import InputError
from instbench.layouts.rle import decode, encode, from_coco_segmentation, to_coco
from tests.instbench.layouts.builders import annotation, coco, crowd, masks, square


def scaled(record: dict[str, Any], size: int = 40, *, width: int = 80, height: int = 60) -> dict[str, Any]:
    return dict(scale_annotations(coco(record, width=width, height=height), size)[0]["annotations"][0])


def test_boxes_and_polygons_follow_their_axes() -> None:
    found = scaled(annotation(1))
    assert found["bbox"] == pytest.approx([10, 20 / 3, 5, 20 / 3])
    assert found["segmentation"][0] == pytest.approx(
        [value * factor for value, factor in zip(square(20, 10, 10), [0.5, 2 / 3] * 4, strict=True)]
    )
    assert found["area"] == from_area(found["segmentation"], 40)
    assert {key: found[key] for key in ("id", "image_id", "category_id", "iscrowd")} == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
    }
    assert "ignore" not in found


def from_area(segmentation: Any, size: int) -> float:
    return float(decode(from_coco_segmentation(segmentation, size, size)).sum())


def test_run_lengths_stay_run_lengths_and_crowds_stay_crowds() -> None:
    found = scaled(crowd(1))
    assert found["iscrowd"] == 1
    mask = decode(from_coco_segmentation(found["segmentation"], 40, 40))
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()
    assert found["area"] == 800


# Powers of two: no target centre falls on the border of two source pixels, where PIL rounds by accident.
@given(masks.filter(np.any), st.sampled_from([16, 32, 64]))
def test_run_lengths_are_resized_as_pil_nearest_does(mask: Any, size: int) -> None:
    height, width = mask.shape
    record = annotation(1, segmentation=to_coco(encode(mask)), bbox=[0, 0, width, height])
    found = scaled(record, size, width=width, height=height)
    expected = np.asarray(
        Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    )
    if expected.any():
        assert (decode(from_coco_segmentation(found["segmentation"], size, size)) == expected).all()
        assert found["area"] == expected.sum()
    else:
        assert found["area"] == 1  # a requested object must not vanish


def test_a_polygon_that_vanishes_keeps_one_pixel() -> None:
    thin = [10.0, 10.0, 30.0, 10.0, 30.0, 11.2, 10.0, 11.2]
    found = scaled(annotation(1, segmentation=[thin], bbox=[10, 10, 20, 1.2]), 4)
    assert found["area"] == 1
    assert isinstance(found["segmentation"], dict)
    assert "ignore" not in found


def test_short_parts_are_left_out() -> None:
    found = scaled(annotation(1, segmentation=[[1, 1, 2, 2], square(20, 10, 10)]))
    assert len(found["segmentation"]) == 1


def test_boxes_alone_are_scaled() -> None:
    found = scaled(annotation(1, segmentation=[]))
    assert found["area"] == pytest.approx(5 * 20 / 3)
    assert found["segmentation"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [20, 10, 0, 10]},
        {"bbox": [90, 10, 5, 5]},
        {"segmentation": [[1, 1, 2, 2]]},
        {"segmentation": [[5, 5, 5, 5, 5, 5]]},
        {"segmentation": {"size": [60, 80], "counts": [4800]}},
    ],
)
def test_degenerate_annotations_are_kept_marked_and_counted(change: dict[str, Any]) -> None:
    content, counts = scale_annotations(coco(annotation(1, **change), annotation(2), crowd(3)), 40)
    marked = [
        record["id"] for record in content["annotations"] if record.get("ignore_reason") == "degenerate"
    ]
    assert marked == [1]
    assert content["annotations"][0]["ignore"] == 1
    assert (counts.images, counts.annotations, counts.crowds, counts.degenerate) == (1, 3, 1, 1)


def test_images_become_squares_named_after_their_ids() -> None:
    data = coco(annotation(1))
    data["images"][0]["license"] = 4
    content, _ = scale_annotations(data, 40)
    assert content["images"] == [
        {"id": 1, "width": 40, "height": 40, "file_name": "000000000001.png", "license": 4}
    ]
    assert content["categories"] == data["categories"]


@pytest.mark.parametrize("size", [0, -1, 10**6])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="canvas size must be from 1 to 16384"):
        scale_annotations(coco(annotation(1)), size)
