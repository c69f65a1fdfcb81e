from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from instbench.errors import InputError
from instbench.layouts import rle
from instbench.layouts.types import MaskRLE
from tests.instbench.layouts.builders import masks, square


@given(masks)
@settings(deadline=None)
def test_encode_and_decode_round_trip(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    assert (encoded.height, encoded.width) == mask.shape
    np.testing.assert_array_equal(rle.decode(encoded), mask)
    np.testing.assert_array_equal(coco_mask.decode(rle.to_coco(encoded)).astype(bool), mask)
    assert rle.area(encoded) == mask.sum()
    assert sum(rle.run_lengths(encoded.counts)) == mask.size


@given(masks)
@settings(deadline=None)
def test_every_spelling_of_run_lengths_reads_the_same(mask: np.ndarray) -> None:
    encoded = rle.encode(mask)
    size = list(mask.shape)
    spellings = [encoded.counts, encoded.counts.encode(), rle.run_lengths(encoded.counts)]
    for counts in spellings:
        assert rle.from_coco_segmentation({"size": size, "counts": counts}, *mask.shape) == encoded


@given(masks, st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_resize_samples_pixel_centres(mask: np.ndarray, height: int, width: int) -> None:
    resized = rle.decode(rle.resize(rle.encode(mask), height, width))
    rows = [int((row + 0.5) * mask.shape[0] / height) for row in range(height)]
    columns = [int((column + 0.5) * mask.shape[1] / width) for column in range(width)]
    np.testing.assert_array_equal(resized, mask[rows][:, columns])


@given(masks, st.integers(1, 4))
@settings(deadline=None)
def test_resize_by_a_whole_factor_and_back_changes_nothing(mask: np.ndarray, factor: int) -> None:
    encoded = rle.encode(mask)
    larger = rle.resize(encoded, mask.shape[0] * factor, mask.shape[1] * factor)
    assert rle.resize(larger, *mask.shape) == encoded


def test_resize_equals_pillow_nearest() -> None:
    mask = np.random.default_rng(0).random((48, 64)) > 0.5
    expected = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((512, 512), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(rle.decode(rle.resize(rle.encode(mask), 512, 512)), expected.astype(bool))


def test_polygon_parts_are_united_and_short_ones_cover_nothing() -> None:
    parts = [square(2, 2, 4), square(10, 2, 4), [1, 1, 5, 5]]
    mask = rle.decode(rle.from_coco_segmentation(parts, 12, 20))
    assert mask[3, 3]
    assert mask[3, 11]
    assert not mask[3, 8]
    assert not mask[0, 0]
    assert rle.area(rle.from_coco_segmentation([[1, 1, 5, 5]], 12, 20)) == 0


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [20, 12], "counts": [240]}, r"size is \[20, 12\]"),
        ({"size": [12, 20], "counts": [200]}, "cover 200 pixels"),
        ({"size": [12, 20], "counts": [250, -10]}, "lengths from 0 to 240"),
        ({"size": [12, 20], "counts": "~~~"}, "not a COCO run-length string"),
        ({"size": [12, 20], "counts": "P"}, "truncated"),
        ({"size": [12, 20], "counts": "oooooooooo0"}, "not a COCO run-length string"),
        ({"size": [12, 20]}, "run-length string"),
        ([[1, 1, 2]], "pairs"),
        ([[1, 1, 2, float("nan"), 3, 3]], "NaN"),
        ([[1, 1, 2, 2, 1e9, 3]], "outside the image"),
        ([["1", 1, 2, 2, 3, 3]], "numbers"),
        ("polygon", "must be polygons"),
    ],
)
def test_bad_segmentations_are_refused_in_one_line(segmentation: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rle.from_coco_segmentation(segmentation, 12, 20)
    assert "\n" not in str(caught.value)


def test_decode_refuses_runs_that_do_not_fit() -> None:
    counts = rle.encode(np.ones((4, 4), dtype=bool)).counts
    with pytest.raises(InputError, match="cover 16 pixels"):
        rle.decode(MaskRLE(height=5, width=5, counts=counts))
    with pytest.raises(InputError, match="pixels a side"):
        rle.decode(MaskRLE(height=10**6, width=10**6, counts=counts))
