"""Locations as boxes: each from what a benchmark shows, and from nothing more."""

from __future__ import annotations

import numpy as np
import pytest

from instbench.generators.boxes import MIN_SIDE, POINT_SIDE, as_boxes
from instbench.layouts.rle import encode
from instbench.layouts.types import Condition

from .helpers import instance, layout

ONLY_BOX = ("mask", "mask_points_xy", "scribble_xy", "point_xy", "condition")


def box(shown: Condition | set[Condition], **changes):
    [boxed] = as_boxes(
        layout("k", instance(**changes)), {shown} if isinstance(shown, str) else shown
    ).instances
    assert all(getattr(boxed, name) is None for name in ONLY_BOX)
    return boxed.box_xyxy


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition.BOX, (0.2, 0.1, 0.6, 0.5)),
        (Condition.MASK, (3 / 16, 2 / 16, 9 / 16, 8 / 16)),
        (Condition.SCRIBBLE, (0.3, 0.2, 0.5, 0.4)),
        (Condition.POINT, (0.2, 0.1, 0.6, 0.5)),
    ],
)
def test_the_box_of_each_format(condition, expected):
    assert box(condition) == pytest.approx(expected)


def test_withheld_formats_change_nothing():
    wide = box(Condition.POINT, box_xyxy=(0.0, 0.0, 1.0, 1.0), point_xy=(0.4, 0.3))
    assert wide == pytest.approx((0.4 - POINT_SIDE / 2, 0.1, 0.6, 0.3 + POINT_SIDE / 2))
    assert box(Condition.MASK, box_xyxy=(0.0, 0.0, 1.0, 1.0)) != (0.0, 0.0, 1.0, 1.0)


def test_a_given_box_counts_before_the_others():
    assert box(set(Condition)) == (0.2, 0.1, 0.6, 0.5)
    assert box({Condition.POINT, Condition.SCRIBBLE}) == pytest.approx((0.3, 0.2, 0.5, 0.4))


def test_an_instance_asked_in_one_format_keeps_to_it():
    assert box(set(Condition), condition=Condition.MASK) == pytest.approx((3 / 16, 2 / 16, 9 / 16, 8 / 16))


def test_boxes_end_at_the_canvas():
    assert box(Condition.POINT, point_xy=(0.0, 1.0)) == pytest.approx((0.0, 0.8, 0.2, 1.0))


def test_thin_scribbles_get_a_box_with_area():
    x0, y0, x1, y1 = box(Condition.SCRIBBLE, scribble_xy=((0.5, 0.5), (0.5, 0.5)))
    assert (x1 - x0, y1 - y0) == pytest.approx((MIN_SIDE, MIN_SIDE))


def test_an_empty_mask_has_no_box():
    assert box(Condition.MASK, mask=encode(np.zeros((16, 16), dtype=bool))) is None
