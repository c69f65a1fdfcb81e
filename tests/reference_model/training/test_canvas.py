"""Images, boxes and masks reach the square canvas by the same map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reference_model.training.canvas import Canvas, load_image

SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))


@given(size=SIZES, side=st.integers(8, 40))
def test_the_middle_is_kept(size, side):
    canvas = Canvas(size, side)
    assert canvas.size == (side, side)
    assert min(canvas.scaled) == side
    assert canvas.mask(np.ones(size[::-1], np.uint8)).shape == (side, side)
    assert canvas.box(0, 0, *size) == pytest.approx((0.0, 0.0, 1.0, 1.0))


def test_boxes_masks_and_pixels_agree():
    canvas = Canvas((60, 40), 20)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    picture = np.asarray(canvas.image(Image.fromarray(mask * 255)))
    expected = np.zeros((20, 20), bool)
    expected[5:15, 5:15] = True
    assert np.array_equal(canvas.mask(mask) > 0, expected)
    assert np.array_equal(picture > 127, expected)
    assert canvas.box(20, 10, 20, 20) == pytest.approx((0.25, 0.25, 0.75, 0.75))
    assert canvas.box(0, 0, 5, 5)[:2] == (0.0, 0.0)


def test_without_a_side_nothing_changes():
    canvas = Canvas((30, 20))
    assert canvas.box(3, 2, 6, 10) == pytest.approx((0.1, 0.1, 0.3, 0.6))
    mask = np.eye(20, 30, dtype=np.uint8)
    assert canvas.mask(mask) is mask


def test_bad_images_are_named(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (6, 4)).save(path)
    assert load_image(path, (6, 4), 4).shape == (4, 4, 3)
    with pytest.raises(ValueError, match=r"a\.png: 6x4 px, instances\.json says 4x6"):
        load_image(path, (4, 6), 4)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"a\.png: cannot be read .* copy the image again"):
        load_image(path, (6, 4), 4)
