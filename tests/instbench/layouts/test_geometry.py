from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instbench.layouts import geometry

unit = st.floats(0, 1)
sides = st.integers(1, 4096)
boxes = st.tuples(unit, unit, unit, unit).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(boxes, sides, sides)
@settings(deadline=None)
def test_boxes_to_pixels_and_back(box: tuple[float, ...], width: int, height: int) -> None:
    pixels = geometry.boxes_xyxy_to_pixels(box, width, height)
    np.testing.assert_allclose(geometry.boxes_xyxy_to_relative(pixels, width, height), box, atol=1e-12)


@given(st.lists(boxes, max_size=4))
@settings(deadline=None)
def test_corners_and_sides_are_inverse(many: list[tuple[float, ...]]) -> None:
    array = np.array(many, dtype=np.float64).reshape(-1, 4)
    there = geometry.boxes_xyxy_to_xywh(array)
    np.testing.assert_allclose(geometry.boxes_xywh_to_xyxy(there), array, atol=1e-12)


@given(st.tuples(*[st.floats(-5, 5)] * 4))
@settings(deadline=None)
def test_clipped_boxes_lie_inside(box: tuple[float, ...]) -> None:
    clipped = geometry.clip_boxes_xyxy(box)
    assert ((clipped >= 0) & (clipped <= 1)).all()
    np.testing.assert_array_equal(geometry.clip_boxes_xyxy(clipped), clipped)


@given(st.integers(0, 99), st.integers(0, 49))
@settings(deadline=None)
def test_pixel_centres_fall_back_into_their_pixel(column: int, row: int) -> None:
    point = geometry.pixel_centres_to_relative((column, row), 100, 50)
    pixel = geometry.points_to_pixels(point, 100, 50)
    assert (int(pixel[0]), int(pixel[1])) == (column, row)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="4 values"):
        geometry.clip_boxes_xyxy([1, 2, 3])
    with pytest.raises(ValueError, match="2 values"):
        geometry.points_to_pixels([1, 2, 3], 10, 10)
