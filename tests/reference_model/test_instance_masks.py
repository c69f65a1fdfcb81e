"""Where instances lie on the latent grid, against plain loops."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_model.instance_masks import cells_from_boxes, cells_from_masks, cells_from_points

SIZES = st.integers(2, 9)
UNIT = st.integers(0, 64).map(lambda value: value / 64)  # exact in floating point


@settings(max_examples=80, deadline=None)
@given(x=st.tuples(UNIT, UNIT), y=st.tuples(UNIT, UNIT), height=SIZES, width=SIZES)
def test_a_box_covers_the_cells_it_overlaps(x, y, height, width):
    (x0, x1), (y0, y1) = sorted(x), sorted(y)
    cells = cells_from_boxes(torch.tensor([x0, y0, x1, y1], dtype=torch.float64), height, width)
    for row in range(height):
        for column in range(width):
            overlap_x = min(x1 * width, column + 1) - max(x0 * width, column)
            overlap_y = min(y1 * height, row + 1) - max(y0 * height, row)
            if x1 > x0 and y1 > y0:
                assert bool(cells[row, column]) == (overlap_x > 0 and overlap_y > 0)


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=4),
    radius=st.sampled_from([0.0, 0.1, 0.3]),
    size=st.sampled_from([3, 8, 9]),
)
def test_points_cover_near_centres_and_their_own_cell(points, radius, size):
    cells = cells_from_points(torch.tensor(points, dtype=torch.float64), radius, size, size)
    for x, y in points:
        assert cells[min(int(y * size), size - 1), min(int(x * size), size - 1)]
    rows, columns = np.nonzero(cells.numpy())
    for row, column in zip(rows, columns, strict=True):
        offsets = [(x - (column + 0.5) / size, y - (row + 0.5) / size) for x, y in points]
        near = any(dx * dx + dy * dy <= radius**2 + 1e-12 for dx, dy in offsets)
        own = 0.5 / size + 1e-12
        assert near or any(abs(dx) <= own and abs(dy) <= own for dx, dy in offsets)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2, 96), cell=st.integers(0, 96), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_points_on_cell_borders_are_not_lost_to_rounding(size, cell, dtype):
    border = min(cell, size) / size
    cells = cells_from_points(torch.tensor([[border, border]], dtype=dtype), 0.0, size, size)
    assert cells.any()
    assert cells.sum() <= 4


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_mask_covers_every_cell_it_touches(seed):
    mask = np.random.default_rng(seed).random((2, 24, 32)) < 0.02
    cells = cells_from_masks(torch.from_numpy(mask), 6, 8)
    expected = mask.reshape(2, 6, 4, 8, 4).any(axis=(2, 4))
    assert np.array_equal(cells.numpy(), expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shape=st.tuples(SIZES, SIZES), height=SIZES, width=SIZES)
def test_masks_of_any_size_cover_every_cell_they_touch(seed, shape, height, width):
    mask = np.random.default_rng(seed).random(shape) < 0.15
    cells = cells_from_masks(torch.from_numpy(mask), height, width)
    expected = np.zeros((height, width), dtype=bool)
    for row, column in np.argwhere(mask):
        for y in range(height):
            for x in range(width):
                # Integer form of: the pixel's and the cell's extents overlap by more than an edge.
                in_row = row * height < (y + 1) * shape[0] and (row + 1) * height > y * shape[0]
                in_column = column * width < (x + 1) * shape[1] and (column + 1) * width > x * shape[1]
                expected[y, x] |= in_row and in_column
    assert np.array_equal(cells.numpy(), expected)
