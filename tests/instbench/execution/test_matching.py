from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from instbench.evaluators.base import Detections
from instbench.execution.matching import match_layout
from instbench.layouts.types import Instance, Layout

BOXES = {"a": (0.0, 0.0, 0.5, 0.5), "b": (0.5, 0.5, 1.0, 1.0)}


def layout(*asked: tuple[str, str]) -> Layout:
    instances = tuple(
        Instance(category, category, 1 + (category == "dog"), index, BOXES[box])
        for index, (category, box) in enumerate(asked)
    )
    return Layout("k", "toy", 1, "", 100, 100, instances)


def seen(*found: tuple[str, tuple[float, float, float, float], float]) -> Detections:
    return Detections(
        np.array([box for _, box, _ in found], dtype=np.float32).reshape(-1, 4),
        np.array([score for *_, score in found], dtype=np.float32),
        tuple(category for category, *_ in found),
    )


def test_class_score_and_overlap_all_count():
    asked = layout(("cat", "a"), ("dog", "b"))
    assert match_layout(asked, seen(), 100) == [None, None]
    wrong = seen(("dog", (0, 0, 50, 50), 0.9), ("cat", (0, 0, 50, 50), 0.2), ("cat", (60, 0, 99, 20), 0.9))
    assert match_layout(asked, wrong, 100) == [None, None]
    right = match_layout(asked, seen(("dog", (50, 50, 100, 100), 0.5), ("cat", (0, 0, 50, 25), 0.9)), 100)
    assert [(one.detection, one.iou) for one in right if one] == [(1, 0.5), (0, 1.0)]


def test_one_detection_answers_one_instance_and_more_answers_win():
    asked = layout(("cat", "a"), ("cat", "a"))
    [first, second] = match_layout(asked, seen(("cat", (0, 0, 50, 50), 0.9)), 100)
    assert (first is None) != (second is None)
    both = match_layout(asked, seen(("cat", (0, 0, 50, 50), 0.9), ("cat", (0, 0, 20, 20), 0.9)), 100)
    assert sorted(one.detection for one in both if one) == [0, 1]


coordinates = st.integers(0, 100)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda one: (min(one[0], one[2]), min(one[1], one[3]), max(one[0], one[2]), max(one[1], one[3]))
)


@given(st.lists(st.tuples(st.sampled_from(["cat", "dog"]), boxes, st.floats(0, 1, width=32)), max_size=5))
def test_matches_are_one_to_one_and_of_the_right_class(found):
    asked = layout(("cat", "a"), ("dog", "a"), ("cat", "b"))
    matches = match_layout(asked, seen(*found), 100)
    used = [match.detection for match in matches if match]
    assert len(set(used)) == len(used)
    for instance, match in zip(asked.requested, matches, strict=True):
        if match:
            assert found[match.detection][0] == instance.category
            assert match.score >= 0.3 - 1e-6
            assert 0.1 <= match.iou <= 1.0
