from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from instbench.evaluators.base import Detections
from instbench.layouts import (
    Condition,
    Layout,
    asked_and_found,
    draw_detections,
    draw_layout,
    from_coco,
    restrict,
)
from instbench.layouts.drawing import instance_color
from instbench.layouts.rle import encode
from tests.instbench.layouts.builders import annotation, coco, crowd


@pytest.fixture
def layout() -> Layout:
    return from_coco(coco(annotation(1), annotation(2, category_id=7, bbox=[50, 30, 20, 20]), crowd(3)))[0]


def _detections(side: int) -> Detections:
    mask = np.zeros((side, side), dtype=bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    box = [side / 4, side / 4, side / 2, side / 2]
    return Detections(
        boxes_xyxy=np.array([box, box], dtype=np.float32),
        scores=np.array([0.9, 0.1], dtype=np.float32),
        categories=("cat", "dog"),
        masks=(encode(mask), encode(mask)),
    )


def test_small_pictures_are_enlarged(layout: Layout) -> None:
    image = Image.new("RGB", (128, 128), "white")
    assert draw_layout(image, layout).size == (384, 384)
    assert draw_layout(image, layout, 200).size == (200, 200)
    assert draw_layout(None, layout).size == (512, 512)
    assert image.getextrema() == ((255, 255),) * 3  # the input is left alone


@pytest.mark.parametrize("condition", list(Condition))
def test_each_format_leaves_its_mark(layout: Layout, condition: Condition) -> None:
    restricted = restrict(layout, [condition])
    drawn = np.asarray(draw_layout(None, restricted, 384))
    silent = replace(restricted.instances[0], phrase="")
    bare = np.asarray(draw_layout(None, replace(restricted, instances=(silent,)), 384))
    color = np.array(instance_color(0))
    assert (bare == color).all(axis=-1).sum() > 20
    assert not np.array_equal(drawn, bare)


def test_boxes_lie_where_they_should() -> None:
    (one,) = from_coco(coco(annotation(1)))
    drawn = np.asarray(draw_layout(None, restrict(one, [Condition.BOX]), 480))
    assert tuple(drawn[100, 120]) == instance_color(0)  # left edge at 20/80 of 480, between 10/60 and 20/60
    assert tuple(drawn[300, 300]) == (208, 208, 208)


def test_detections_below_the_threshold_are_left_out() -> None:
    image = Image.new("RGB", (128, 96), "white")
    both = draw_detections(image, _detections(96), min_score=0.0)
    one = draw_detections(image, replace(_detections(96), masks=None))
    assert one.size == (384, 288)
    assert both.tobytes() != one.tobytes()
    none = draw_detections(image, _detections(96), min_score=0.95)
    assert none.getextrema() == ((255, 255),) * 3


def test_side_by_side_holds_three_panels_and_the_caption(layout: Layout) -> None:
    image = Image.new("RGB", (128, 128), (10, 200, 30))
    sheet = asked_and_found(image, replace(layout, caption="two\nanimals " * 200), _detections(128))
    assert sheet.width == 3 * 384 + 4 * 8
    assert sheet.height > 384
    pixels = np.asarray(sheet)
    assert (pixels == (10, 200, 30)).all(axis=-1).sum() > 384 * 384  # two panels show the image
    empty = replace(layout, instances=(), caption="")
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
    assert asked_and_found(image, empty, nothing, 256).width == 3 * 256 + 4 * 8
