from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from instbench.layouts import from_coco
from instbench.layouts.published import SEGMENT_SIZE, as_published
from instbench.layouts.rle import decode
from tests.instbench.layouts.builders import annotation, coco, crowd, square


def test_thirty_annotations_are_shown_and_crowds_are_among_them() -> None:
    data = coco(crowd(1), *(annotation(n) for n in range(2, 36)))
    (layout,) = from_coco(data, edition="paper")
    shown = as_published(layout)
    assert [one.annotation_id for one in shown.instances] == list(range(1, 31))
    assert shown.instances[0].is_crowd
    assert shown.caption == layout.caption == ", ".join(["cat"] * 35)
    assert len(layout.requested) == 35


def test_a_single_instance_gets_its_top_row_in_every_row() -> None:
    touching = annotation(1, bbox=[20, 0, 10, 20], segmentation=[[20, 0, 30, 0, 30, 20, 20, 20]])
    (layout,) = from_coco(coco(touching), edition="paper")
    (instance,) = as_published(layout).instances
    assert instance.mask is not None
    mask = decode(instance.mask)
    assert mask.shape == (SEGMENT_SIZE, SEGMENT_SIZE)
    columns = np.flatnonzero(mask[0])
    assert (columns.min(), columns.max()) == (128, 191)  # 20/80 and 30/80 of 512
    assert (mask == mask[0]).all()
    whole = layout.instances[0]
    assert instance.mask_points_xy == whole.mask_points_xy
    assert instance.scribble_xy == whole.scribble_xy


def test_a_single_instance_away_from_the_top_has_no_segment() -> None:
    (layout,) = from_coco(coco(annotation(1)), edition="paper")
    (instance,) = as_published(layout).instances
    assert instance.mask is None
    assert instance.mask_points_xy is not None


def test_two_instances_keep_their_masks() -> None:
    two = coco(annotation(1), annotation(2, segmentation=[square(40, 30, 5)], bbox=[40, 30, 5, 5]))
    (layout,) = from_coco(two, edition="paper")
    assert as_published(layout) == layout
    bare = replace(layout, instances=())
    assert as_published(bare) == bare


def test_boxes_that_no_model_takes_are_mended() -> None:
    data = coco(annotation(1, bbox=[70, 10, 20, 0], segmentation=None), annotation(2), annotation(3))
    (layout,) = from_coco(data, edition="paper")
    first = as_published(layout).instances[0]
    assert first.box_xyxy is not None
    x0, y0, x1, y1 = first.box_xyxy
    assert (x0, x1) == (70 / 80, 1.0)
    assert y1 - y0 == pytest.approx(1e-6)
    assert layout.instances[0].box_xyxy == (70 / 80, 10 / 60, 90 / 80, 10 / 60)
    assert first.point_xy == (1.0, 10 / 60)
