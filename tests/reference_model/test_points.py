from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from reference_model.points import (
    boundary_points,
    mask_points_from_mask,
    relative_points,
    reorder_scribbles,
    scribble_points_from_mask,
)

FIXTURES = Path(__file__).parent / "fixtures"

RECORDED: dict[str, Any] = json.loads((FIXTURES / "points.json").read_text())
MASKS = {
    name: np.array([[int(c) for c in row] for row in entry["rows"]], dtype=np.uint8)[:, :, None]
    for name, entry in RECORDED["masks"].items()
}


def test_scribbles_equal_recorded() -> None:
    stream = np.random.RandomState(RECORDED["seed"])
    for entry in RECORDED["random_points"]:
        rng = np.random.RandomState(entry["reseed"]) if "reseed" in entry else stream
        mask = MASKS[entry["mask"]].astype(entry["dtype"])
        assert scribble_points_from_mask(mask, entry["k"], rng=rng).tolist() == entry["out"], entry["mask"]


def test_mask_points_equal_recorded() -> None:
    for entry in RECORDED["sparse_points"]:
        rng = random.Random(entry["py_reseed"])
        points = mask_points_from_mask(MASKS[entry["mask"]], entry["k"], rng=rng)
        assert (None if points is None else points.tolist()) == entry["out"], entry["mask"]


def test_boundaries_equal_recorded() -> None:
    assert len(RECORDED["binary_mask_to_polygon"]) == len(MASKS)
    for name, contours in RECORDED["binary_mask_to_polygon"].items():
        expected = [value for contour in contours for value in contour]
        assert boundary_points(MASKS[name]).ravel().tolist() == expected, name


def test_preparation_equals_recorded() -> None:
    for entry in RECORDED["prepare"]:
        mask = MASKS[entry["mask"]][:, :, 0]
        size = (entry["img_info"]["width"], entry["img_info"]["height"])
        resized = np.array(Image.fromarray(mask).resize((512, 512), resample=Image.Resampling.NEAREST))
        scribble = scribble_points_from_mask(resized, rng=np.random.RandomState(entry["reseed"]))
        assert relative_points(scribble, *size).tolist() == entry["scribbles"]
        points = mask_points_from_mask(mask, rng=random.Random(entry["reseed"]))
        points = np.zeros(512) if points is None else points
        assert relative_points(points, *size).tolist() == entry["polygons"]


def test_reorder_equals_recorded() -> None:
    for entry in RECORDED["reorder"]:
        assert reorder_scribbles(entry["points"]) == entry["out"]
    strokes = RECORDED["reorder_as_called_by_inference_py"]
    expected = [strokes["in_"][i] for i in strokes["out_index"]]
    assert reorder_scribbles(strokes["in_"]) == expected


def test_relative_points_equal_recorded() -> None:
    for entry in RECORDED["convert"]:
        size = (entry["img_info"]["width"], entry["img_info"]["height"])
        assert relative_points(entry["points"], *size).tolist() == entry["out"]


masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=50, deadline=None)
@given(masks, st.integers(1, 30), st.integers(0, 99))
def test_scribble_points_lie_in_the_mask(mask: NDArray[np.bool_], count: int, seed: int) -> None:
    for rng in (np.random.RandomState(seed), np.random.default_rng(seed)):
        points = scribble_points_from_mask(mask, count, rng=rng).reshape(-1, 2)
        assert points.shape == (count, 2)
        norms = np.hypot(points[:, 0], points[:, 1])
        assert (np.diff(norms) >= -1e-12).all()
        if not mask.any():
            assert not points.any()
            continue
        x, y = points.astype(int).T
        assert mask[y, x].all()
        if mask.sum() >= count:
            assert len({tuple(p) for p in points}) == count


@settings(max_examples=50, deadline=None)
@given(masks, st.integers(2, 40), st.integers(0, 99))
def test_mask_points_are_near_the_mask(mask: NDArray[np.bool_], count: int, seed: int) -> None:
    points = mask_points_from_mask(mask, count, rng=random.Random(seed))
    if not mask.any():
        assert points is None
        return
    assert points is not None
    pairs = points.reshape(-1, 2)
    assert len(pairs) == count
    assert (np.diff(np.hypot(pairs[:, 0], pairs[:, 1])) >= -1e-12).all()
    padded = np.pad(mask, 2)
    for x, y in pairs.astype(int):  # the contour runs one pixel outside, plus the shift of one
        assert padded[y : y + 4, x : x + 4].any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50), st.integers(1, 25))
def test_reorder_picks_given_points_in_order(points: list[tuple[float, float]], count: int) -> None:
    out = reorder_scribbles(points, count)
    assert len(out) == count
    assert set(out) <= set(points)
    norms = [float(np.linalg.norm(np.asarray(p))) for p in out]
    assert norms == sorted(norms)
    assert min(points, key=lambda p: float(np.linalg.norm(p))) == out[0] or norms[0] == min(
        float(np.linalg.norm(p)) for p in points
    )


def test_global_random_state_is_left_alone() -> None:
    random.seed(0)
    before = random.getstate()
    rng = np.random.RandomState(0)
    for mask in MASKS.values():
        scribble_points_from_mask(mask, rng=rng)
        mask_points_from_mask(mask, rng=random.Random(0))
    assert random.getstate() == before


def test_bad_input_is_named() -> None:
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match=r"mask: shape \(4, 4, 3\)"):
        scribble_points_from_mask(np.ones((4, 4, 3)), rng=rng)
    with pytest.raises(ValueError, match="at least 1"):
        scribble_points_from_mask(np.ones((4, 4)), 0, rng=rng)
    with pytest.raises(ValueError, match="at least one point"):
        reorder_scribbles([])
    with pytest.raises(ValueError, match="x and y in turn"):
        relative_points([1.0, 2.0, 3.0], 4, 4)
    with pytest.raises(ValueError, match="positive sizes"):
        relative_points([1.0, 2.0], 0, 4)
    assert boundary_points(np.zeros((5, 5))).shape == (0, 2)
