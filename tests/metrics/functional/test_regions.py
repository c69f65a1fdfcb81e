from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import Detection, ImageSize
from metrics.functional.regions import detection_regions, pairwise_iou, pixels_inside, to_rle, to_rles
from tests.metrics.builders import rle


def random_mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    return (rng.random((height, width)) < rng.random()).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_compressed_and_uncompressed_run_lengths_are_read(seed: int) -> None:
    mask = random_mask(seed)
    height, width = mask.shape
    flat = np.concatenate(([0], mask.ravel(order="F"), [-1]))
    edges = np.flatnonzero(np.diff(flat)).tolist()
    counts = np.diff([0, *edges]).tolist()
    for segmentation in (rle(mask), {"size": [height, width], "counts": counts}):
        region = to_rle(segmentation, height, width, "x")
        np.testing.assert_array_equal(coco_mask.decode(region), mask)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pixels_inside_equals_decoding(seed: int) -> None:
    mask, rng = random_mask(seed), np.random.default_rng(seed)
    xs, ys = rng.integers(0, mask.shape[1], 25), rng.integers(0, mask.shape[0], 25)
    inside = pixels_inside([rle(mask), rle(1 - mask)], xs, ys)
    np.testing.assert_array_equal(inside[:, 0], mask[ys, xs] == 1)
    np.testing.assert_array_equal(inside[:, 1], mask[ys, xs] == 0)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6))
def test_iou_is_bounded_symmetric_and_exact(first: int, second: int) -> None:
    rng = np.random.default_rng([first, second])
    left, right = rng.random((2, 20, 30)) < rng.random((2, 1, 1))
    iou = pairwise_iou([rle(left)], [rle(right)])[0, 0]
    union = np.logical_or(left, right).sum()
    assert 0 <= iou <= 1
    assert iou == pairwise_iou([rle(right)], [rle(left)])[0, 0]
    assert iou == pytest.approx(np.logical_and(left, right).sum() / union if union else 0.0)


@pytest.mark.parametrize("counts", ["zzzzzzzz", "~~~~~~", "abc", "0", "\x00", "é"])
def test_damaged_run_lengths_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="mask 7: run lengths are damaged"):
        to_rle({"size": [10, 10], "counts": counts}, 10, 10, "mask 7")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [9, 10], "counts": "0"}, r"mask size \[9, 10\] is not the image size \[10, 10\]"),
        ({"size": [10, 10], "counts": [50, 20]}, "add up to 70, not 100"),
        ({"size": [10, 10]}, "no counts"),
        ([[1, 2, 3, 4]], "polygon has 4 numbers"),
        ([], "segmentation is empty"),
    ],
)
def test_bad_segmentations(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rle(segmentation, 10, 10, "mask 7")


def test_box_stands_for_a_missing_mask() -> None:
    box = Detection(0, 1, 1, 0.9, (2.0, 3.0, 4.0, 5.0), None)
    mask = coco_mask.decode(detection_regions([box], ImageSize(1, 20, 30))[0])
    expected = np.zeros((20, 30))
    expected[3:8, 2:6] = 1
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(ValueError, match="image 1: height and width are missing"):
        detection_regions([box], ImageSize(1, None, None))


def test_empty_lists() -> None:
    assert pairwise_iou([], [(0, 0, 1, 1)]).shape == (0, 1)
    assert pixels_inside([], np.array([1]), np.array([1])).shape == (1, 0)


def test_many_run_lengths_are_checked_together() -> None:
    rng = np.random.default_rng(0)
    masks, sizes = [], []
    for _ in range(60):
        height, width = int(rng.integers(1, 40)), int(rng.integers(1, 40))
        mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        packed = coco_mask.encode(np.asfortranarray(mask))
        masks.append({"size": [height, width], "counts": packed["counts"].decode()})
        sizes.append((height, width))
    found = to_rles(masks, sizes, lambda position: f"entry {position}")
    assert found == masks
    for damage in (masks[7]["counts"][:-1], masks[7]["counts"] + "1", "\x7f\x7f", "é", "oooooooo", ""):
        broken = [*masks[:7], {**masks[7], "counts": damage}, *masks[8:]]
        with pytest.raises(ValueError, match="entry 7: run lengths are damaged or of another size"):
            to_rles(broken, sizes, lambda position: f"entry {position}")
    with pytest.raises(ValueError, match=r"entry 3: mask size .* is not the image size"):
        to_rles(masks, [*sizes[:3], (99, 99), *sizes[4:]], lambda position: f"entry {position}")
