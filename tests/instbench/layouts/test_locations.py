from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instbench.layouts.locations import PaperPoints, strict_mask_points, strict_point, strict_scribble
from tests.instbench.layouts.builders import masks

FULL = (0.0, 0.0, 1.0, 1.0)


def _inside(mask: np.ndarray, point: tuple[float, float]) -> bool:
    return bool(mask[int(point[1] * mask.shape[0]), int(point[0] * mask.shape[1])])


@given(masks.filter(np.any))
@settings(deadline=None)
def test_the_strict_point_always_lies_on_the_object(mask: np.ndarray) -> None:
    assert _inside(mask, strict_point(FULL, mask))


def test_the_strict_point_is_the_box_centre_where_that_is_inside() -> None:
    assert strict_point((0.2, 0.2, 0.6, 0.9), np.ones((10, 10), dtype=bool)) == pytest.approx((0.4, 0.55))
    assert strict_point((0.2, 0.2, 0.6, 0.8), None) == pytest.approx((0.4, 0.5))


def test_the_strict_point_of_a_ring_is_the_nearest_pixel() -> None:
    mask = np.ones((9, 9), dtype=bool)
    mask[2:7, 2:7] = False
    # Distance 3 from the centre pixel on all four sides: the first in row-major order wins.
    assert strict_point(FULL, mask) == pytest.approx((4.5 / 9, 1.5 / 9))


@given(masks.filter(np.any), st.integers(0, 2**40), st.integers(0, 5))
@settings(deadline=None)
def test_scribbles_are_mask_pixels_and_depend_on_id_and_seed_alone(
    mask: np.ndarray, identifier: int, seed: int
) -> None:
    scribble = strict_scribble(mask, identifier, seed=seed)
    assert scribble is not None
    assert len(scribble) == 20
    assert all(_inside(mask, point) for point in scribble)
    np.random.seed(1)
    assert strict_scribble(mask, identifier, seed=seed) == scribble


def test_scribbles_are_ordered_and_distinct_where_they_can_be() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    scribble = strict_scribble(mask, 5)
    assert scribble is not None
    columns, rows = np.array(scribble).T * [[60], [40]] - 0.5
    norms = np.hypot(columns, rows)
    assert (np.diff(norms) >= -1e-9).all()
    assert len(set(scribble)) == 20
    assert scribble != strict_scribble(mask, 6)
    assert scribble != strict_scribble(mask, 5, seed=1)


@given(masks.filter(np.any))
@settings(deadline=None)
def test_mask_points_are_256_points_of_the_canvas_near_the_mask(mask: np.ndarray) -> None:
    points = strict_mask_points(mask, 1)
    assert points is not None
    array = np.array(points)
    assert array.shape == (256, 2)
    assert ((array >= 0) & (array <= 1)).all()
    rows, columns = np.nonzero(mask)
    pixels = array * (mask.shape[1], mask.shape[0])
    assert (pixels[:, 0] >= columns.min() - 1e-4).all()
    assert (pixels[:, 0] <= columns.max() + 2 + 1e-4).all()
    assert (pixels[:, 1] >= rows.min() - 1e-4).all()
    assert (pixels[:, 1] <= rows.max() + 2 + 1e-4).all()


def test_empty_masks_have_no_points() -> None:
    empty = np.zeros((8, 8), dtype=bool)
    assert strict_scribble(empty, 1) is None
    assert strict_mask_points(empty, 1) is None
    assert strict_point((0.0, 0.0, 0.5, 0.5), empty) == (0.25, 0.25)


def test_paper_points_keep_the_scale_of_the_published_script() -> None:
    mask = np.ones((256, 512), dtype=bool)
    points = PaperPoints(seed=3).draw(FULL, mask)
    assert points.point_xy == (0.5, 0.5)
    assert points.scribble_xy is not None
    x, y = np.array(points.scribble_xy).T
    # Drawn at 512x512 but divided by the image's own size: rows are doubled, then cut at 1.
    rng = np.random.RandomState(3)
    chosen = rng.choice(512 * 512, 20, replace=False)
    order = np.argsort(np.hypot(chosen // 512, chosen % 512), kind="stable")
    np.testing.assert_allclose(x, (chosen % 512)[order] / 512)
    np.testing.assert_allclose(y, np.minimum((chosen // 512)[order] / 256, 1))


def test_paper_points_of_an_empty_mask_are_zeros_and_draw_nothing() -> None:
    full, empty = np.ones((16, 16), dtype=bool), np.zeros((16, 16), dtype=bool)
    stream = PaperPoints(seed=4)
    nothing = stream.draw(FULL, empty)
    assert set(nothing.scribble_xy or ()) == {(0.0, 0.0)}
    assert nothing.mask_points_xy == ((0.0, 0.0),) * 256
    assert stream.draw(FULL, full) == PaperPoints(seed=4).draw(FULL, full)
