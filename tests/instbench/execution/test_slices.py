"""Bins of instances, and means in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instbench.execution.slices import SLICE_VALUES, SLICES, slice_columns, slice_results
from instbench.layouts.types import Instance, Layout


def layout(*boxes, ignored=()):
    instances = [
        Instance("a", "cat", 1, number, box, is_ignored=number in ignored) for number, box in enumerate(boxes)
    ]
    return Layout("000000000001", "toy", 1, "caption", 100, 100, tuple(instances))


def test_bins():
    small, large, corner = (0.4, 0.4, 0.45, 0.45), (0.3, 0.3, 0.7, 0.7), (0.8, 0.8, 0.95, 0.95)
    rows = slice_columns(layout(small, large, corner), 512)
    assert [row["size"] for row in rows] == ["small", "large", "medium"]
    assert [row["position"] for row in rows] == ["centre", "centre", "corner"]
    assert [row["overlap"] for row in rows] == ["below 0.1", "below 0.1", "none"]
    assert {row["instances_in_image"] for row in rows} == {"2-3"}
    # On a small canvas the limits shrink with it; on a larger one they stay COCO's.
    assert slice_columns(layout(small, large, corner), 128) == rows
    assert slice_columns(layout(small), 1024)[0]["size"] == "medium"


def test_limits_belong_to_the_bin_above_and_borders_to_the_centre():
    sides = (31 / 512, 32 / 512, 95 / 512, 96 / 512)
    rows = slice_columns(layout(*((0.0, 0.0, side, side) for side in sides)), 512)
    assert [row["size"] for row in rows] == ["small", "medium", "medium", "large"]
    third = [
        (0.0, 0.0, 2 / 3, 2 / 3),
        (1 / 3, 1 / 3, 1.0, 1.0),
        (0.0, 0.0, 0.66, 2 / 3),
        (0.0, 0.0, 0.66, 0.66),
    ]
    assert [row["position"] for row in slice_columns(layout(*third), 512)] == [
        "centre",
        "centre",
        "edge",
        "corner",
    ]


def test_edges_counts_and_ignored_instances():
    edge = (0.45, 0.0, 0.55, 0.1)
    assert slice_columns(layout(edge), 128)[0]["position"] == "edge"
    many = [(0.1, 0.1, 0.2, 0.2)] * 8
    rows = slice_columns(layout(*many, ignored={7}), 128)
    assert len(rows) == 7
    assert {row["instances_in_image"] for row in rows} == {"7 or more"}
    assert {row["overlap"] for row in rows} == {"above 0.5"}
    assert slice_columns(layout(), 128) == []


def row(**values):
    return {**dict.fromkeys((*SLICES, *SLICE_VALUES.values())), "image_key": "0", **values}


def test_means_count_what_was_not_scored():
    rows = [
        row(category="cat", hit=True),
        row(category="cat", hit=False),
        row(category="dog", hit=None),
        row(category="dog", hit=True, asked_as="point"),
    ]
    results = slice_results(rows, ["0"])
    assert set(results) == {"point_hit_rate"}
    bins = results["point_hit_rate"]
    assert set(bins) == {"category", "asked_as"}
    assert (bins["category"]["cat"].value, bins["category"]["cat"].n_scored) == (0.5, 2)
    assert (bins["category"]["dog"].value, bins["category"]["dog"].n_unscored) == (1.0, 1)
    assert slice_results([], []) == {}


@given(values=st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.floats(0, 1))), min_size=1))
def test_bins_add_up_to_the_whole(values):
    rows = [row(category=label, iou_mask=value) for label, value in values]
    known = [value for _, value in values if value is not None]
    results = slice_results(rows, ["0"])
    if not known:
        assert results == {}
        return
    bins = results["mask_iou"]["category"].values()
    assert sum(one.n_scored + one.n_unscored for one in bins) == len(values)
    total = sum(one.value * one.n_scored for one in bins if one.value is not None)
    assert total / len(known) == pytest.approx(float(np.mean(known)))
