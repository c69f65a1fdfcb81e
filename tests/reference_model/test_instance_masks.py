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
    points=st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=4), radius=st.sampled_from([0.0, 0.1, 0.3])
)
def test_points_cover_near_centres_and_their_own_cell(points, radius):
    size = 8
    cells = cells_from_points(torch.tensor(points, dtype=torch.float64), radius, size, size)
    for x, y in points:
        assert cells[min(int(y * size), size - 1), min(int(x * size), size - 1)]
    rows, columns = np.nonzero(cells.numpy())
    for row, column in zip(rows, columns, strict=True):
        offsets = [(x - (column + 0.5) / size, y - (row + 0.5) / size) for x, y in points]
        near = any(dx * dx + dy * dy <= radius**2 + 1e-12 for dx, dy in offsets)
        assert near or any(abs(dx) <= 0.5 / size and abs(dy) <= 0.5 / size for dx, dy in offsets)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_mask_covers_every_cell_it_touches(seed):
    mask = np.random.default_rng(seed).random((2, 24, 32)) < 0.02
    cells = cells_from_masks(torch.from_numpy(mask), 6, 8)
    expected = mask.reshape(2, 6, 4, 8, 4).any(axis=(2, 4))
    assert np.array_equal(cells.numpy(), expected)
