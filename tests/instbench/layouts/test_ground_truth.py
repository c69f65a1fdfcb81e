from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from instbench.errors import InputError
from instbench.layouts import Condition, canvas_ground_truth, from_coco, restrict
from instbench.layouts.ground_truth import canvas_mask
from instbench.layouts.rle import area, decode, encode
from tests.instbench.layouts.builders import annotation, coco, crowd, masks


def test_boxes_and_masks_are_squashed_to_the_canvas() -> None:
    layouts = from_coco(coco(annotation(2), images=2))
    truth = canvas_ground_truth(layouts, 120)
    assert [(image["id"], image["width"], image["height"]) for image in truth["images"]] == [
        (1, 120, 120),
        (2, 120, 120),
    ]
    (record,) = truth["annotations"]
    assert record["bbox"] == pytest.approx([30, 20, 15, 20])
    assert record["area"] == 300
    mask = coco_mask.decode(record["segmentation"])
    assert mask.shape == (120, 120)
    assert mask[20:40, 30:45].all()
    assert (record["iscrowd"], record["ignore"]) == (0, 0)
    assert record["point"] == pytest.approx([25 / 80, 15 / 60])
    assert len(record["scribble"]) == 20
    assert truth["categories"] == [{"id": 1, "name": "cat"}]


def test_ignored_instances_stay_marked() -> None:
    layouts = from_coco(coco(crowd(1), annotation(2), annotation(3)), max_instances=1)
    records = canvas_ground_truth(layouts, 64)["annotations"]
    assert [(r["id"], r["iscrowd"], r["ignore"], r.get("ignore_reason")) for r in records] == [
        (1, 1, 1, "crowd"),
        (2, 0, 0, None),
        (3, 0, 1, "over-cap"),
    ]


def test_without_a_mask_the_box_gives_the_area() -> None:
    (record,) = canvas_ground_truth(from_coco(coco(annotation(1, segmentation=None))), 120)["annotations"]
    assert "segmentation" not in record
    assert record["area"] == pytest.approx(15 * 20)


@given(masks, st.integers(1, 40))
@settings(deadline=None)
def test_a_mask_never_vanishes(mask: np.ndarray, size: int) -> None:
    encoded = canvas_mask(encode(mask), size)
    assert (area(encoded) > 0) == bool(mask.any())


def test_a_lost_pixel_lands_where_it_was() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[51, 102] = True
    rows, columns = np.nonzero(decode(canvas_mask(encode(mask), 10)))
    assert (rows.tolist(), columns.tolist()) == ([5], [5])


def test_bad_layouts_are_refused() -> None:
    (layout,) = from_coco(coco(annotation(2)))
    with pytest.raises(InputError, match="annotation 2 has no box"):
        canvas_ground_truth([restrict(layout, [Condition.MASK])], 64)
    with pytest.raises(InputError, match="image id 1 occurs twice"):
        canvas_ground_truth([layout, layout], 64)
    with pytest.raises(InputError, match="annotation id 2 occurs twice"):
        canvas_ground_truth([layout, replace(layout, image_id=9)], 64)
    renamed = replace(layout.instances[0], annotation_id=3, category="lynx")
    with pytest.raises(InputError, match="category id 1 is both 'cat' and 'lynx'"):
        canvas_ground_truth([layout, replace(layout, image_id=9, instances=(renamed,))], 64)
    with pytest.raises(InputError, match="canvas size"):
        canvas_ground_truth([layout], 0)
