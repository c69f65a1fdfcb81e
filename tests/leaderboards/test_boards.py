"""Which runs share a table, and what a rank says."""

import pytest

from leaderboards.boards import Number, make_boards, rank_ranges
from leaderboards.submissions import read_board
from tests.leaderboards.submitting import number, results, write


def boards(tmp_path, *contents):
    return make_boards(read_board([write(tmp_path / str(n), one) for n, one in enumerate(contents)]))


def numbers(**values):
    return {name: Number(v, (v - w, v + w), 10, 0, "fraction", True) for name, (v, w) in values.items()}


def test_clear_differences_are_ranks_and_others_are_ties():
    ranks = rank_ranges(numbers(best=(0.9, 0.01), second=(0.5, 0.1), third=(0.48, 0.1)))
    assert ranks == {"best": (1, 1), "second": (2, 3), "third": (2, 3)}


def test_holm_makes_the_test_stricter():
    # A difference of 1.96 * 1.05 standard errors: p = 0.04, enough for one pair and not among three.
    pair = numbers(a=(0.5, 0.1), b=(0.5 + 0.1 * 2**0.5 * 1.05, 0.1))
    assert rank_ranges(pair) == {"a": (2, 2), "b": (1, 1)}
    third = {**pair, **numbers(c=(0.55, 0.1))}
    assert rank_ranges(third)["a"] == (1, 3)


def test_lower_is_better_and_missing_intervals():
    near = Number(1.0, (0.9, 1.1), 4, 0, "distance", False)
    far = Number(9.0, (8.9, 9.1), 4, 0, "distance", False)
    bare = Number(0.1, None, 4, 0, "distance", False)
    assert rank_ranges({"far": far, "near": near, "bare": bare}) == {"far": (2, 2), "near": (1, 1)}


def test_the_sides_that_face_each_other_count():
    """All hit on few images: the interval reaches down only, and what it says of the upper end is no error."""
    full = Number(1.0, (0.8, 1.0), 16, 0, "fraction", True)
    near = Number(0.86, (0.81, 0.90), 64, 0, "fraction", True)
    lopsided = Number(0.79, (0.5, 0.80), 64, 0, "fraction", True)
    assert rank_ranges({"full": full, "near": near}) == {"full": (1, 2), "near": (1, 2)}
    assert rank_ranges({"full": full, "far": lopsided}) == {"full": (1, 1), "far": (2, 2)}


def test_ranks_in_common_are_no_tie_where_a_third_ties_with_both():
    ranks = rank_ranges(numbers(best=(0.9, 0.05), between=(0.8, 0.2), last=(0.7, 0.05)))
    assert ranks == {"best": (1, 2), "between": (1, 3), "last": (2, 3)}


def test_without_any_error_only_equal_numbers_tie():
    sure = numbers(a=(0.5, 0.0), b=(0.5, 0.0), c=(0.4, 0.0))
    assert rank_ranges(sure) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}


@pytest.mark.parametrize(
    "change",
    [
        {"edition": "paper"},
        {"benchmark_version": 2},
        {"benchmark": "shapes-mask"},
        {"evaluators": {"detector": {"name": "yolo", "sha256": {"model": "c" * 64}}}},
    ],
)
def test_what_differs_gets_a_table_of_its_own(tmp_path, change):
    assert [len(one.entries) for one in boards(tmp_path, results("a"), results("b", **change))] == [1, 1]


def test_ceiling_joins_and_neither_end_has_a_rank(tmp_path):
    made = boards(
        tmp_path,
        results("mine"),
        results("text-only"),
        results("real-images", benchmark="shapes-real", metrics={"box_ap": number(0.9, [0.8, 1.0])}),
    )
    box = made[0]
    assert (box.dataset, box.condition) == ("shapes", "box")
    assert {one.submission.results["model"]: (one.role, one.ranks.get("box_ap")) for one in box.entries} == {
        "mine": ("", (1, 1)),
        "text-only": ("floor", None),
        "real-images": ("ceiling", None),
    }
    other = results("real-images", benchmark="shapes-real", edition="paper")
    assert len(boards(tmp_path / "other", results("mine"), other)[0].entries) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"benchmark_version": 2},
        {"benchmark": "toy-real"},
        {"counts": {"images": 5, "images_missing": 0, "instances_requested": 10, "instances_ignored": 0}},
        {"counts": {"images": 4, "images_missing": 0, "instances_requested": 11, "instances_ignored": 0}},
        {"evaluators": {"detector": {"name": "yolo", "sha256": {"model": "c" * 64}}}},
    ],
)
def test_real_images_that_were_asked_or_seen_otherwise_are_no_ceiling(tmp_path, change):
    scored = change.get("counts", {"instances_requested": 10})["instances_requested"]
    metrics = {"box_ap": number(0.9, [0.8, 1.0], scored)}
    real = results("real-images", **{"benchmark": "shapes-real", "metrics": metrics, **change})
    assert [one.role for one in boards(tmp_path, results("mine"), real)[0].entries] == [""]


def test_a_ceiling_of_the_benchmark_itself_stands_alone(tmp_path):
    own = results("real-images", metrics={"box_ap": number(0.9, [0.8, 1.0])})
    made = boards(tmp_path, results("mine"), own, {**own, "benchmark": "shapes-real"})
    assert [one.role for one in made[0].entries].count("ceiling") == 1


def test_the_headline_of_the_benchmark_comes_first(tmp_path):
    both = {"box_ap": number(0.5), "mask_ap": number(0.4), "older": number(0.1)}
    asked = results("a", metrics=both, metrics_asked=["mask_ap", "box_ap"])
    assert boards(tmp_path, asked)[0].metrics == ["mask_ap", "box_ap", "older"]
