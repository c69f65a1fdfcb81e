from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metrics import points_in_mask
from metrics.functional.matching import NO_DETECTION, TAKEN
from metrics.functional.points_in_mask import NO_POINTS, OUTSIDE
from tests.metrics.builders import (
    HEIGHT,
    WIDTH,
    annotation,
    detection,
    perfect,
    random_pair,
    rle,
    truth,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"


def scribbles(gt: dict, seed: int = 0) -> dict[int, list[tuple[float, float]]]:
    """20 points of each annotation's box, as the generator would have been shown."""
    rng, table = np.random.default_rng(seed), {}
    for entry in gt["annotations"]:
        x, y, w, h = entry["bbox"]
        xs, ys = rng.integers(x, x + w, 20) + 0.5, rng.integers(y, y + h, 20) + 0.5
        table[entry["id"]] = list(zip((xs / WIDTH).tolist(), (ys / HEIGHT).tolist(), strict=True))
    return table


def test_points_by_hand() -> None:
    gt = truth(
        annotation(1, (0, 0, 10, 10)),
        annotation(2, (30, 0, 10, 10)),
        annotation(3, (0, 20, 10, 10), category=2),
        annotation(4, (31, 7, 10, 6)),
        annotation(5, (40, 20, 10, 10), iscrowd=1),
        annotation(6, (40, 20, 10, 10), category=3, ignore=1, ignore_reason="over-cap"),
        annotation(7, (40, 20, 10, 10), image=2),
        images=2,
    )
    found = [
        detection((0, 0, 10, 10), 0.5),
        detection((31, 9, 8, 8)),
        detection((0, 20, 10, 10)),
        detection((40, 20, 10, 10), 0.2, image=2),
    ]
    result = points_in_mask(gt, found)
    rows = result.per_instance
    assert [row.value for row in rows] == [1.0, 0.0, 0.0, 1.0, None, None, 0.0]
    reasons = [None, OUTSIDE, NO_DETECTION, None, "crowd", "over-cap", NO_DETECTION]
    assert [row.reason for row in rows] == reasons
    assert (rows[0].detection, rows[0].score) == (0, 0.5)
    assert result.value == pytest.approx(2 / 5)
    assert result.per_image == {1: 0.5, 2: 0.0}
    assert (result.n_scored, result.n_unscored, result.n_missing) == (5, 2, 3)
    assert result.reasons == {"crowd": 1, "over-cap": 1}


def test_assignment_takes_the_most_hits_then_the_best_scores() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (12, 0, 10, 10)))
    both, first_only = detection((0, 0, 25, 10), 0.9), detection((0, 0, 10, 10), 0.4)
    better = detection((1, 1, 8, 8), 0.6)
    result = points_in_mask(gt, [both, first_only, better])
    assert result.value == 1.0
    assert [row.detection for row in result.per_instance] == [2, 0]


def test_a_scribble_takes_the_largest_share_then_the_best_score() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    points = {1: [((x + 0.5) / WIDTH, 5.5 / HEIGHT) for x in range(10)]}
    all_of_it, a_part = detection((0, 0, 10, 10), 0.4), detection((0, 0, 6, 10), 0.95)
    row = points_in_mask(gt, [a_part, all_of_it], "scribble", given=points).per_instance[0]
    assert (row.detection, row.value) == (1, 1.0)
    row = points_in_mask(gt, [a_part, {**a_part, "score": 0.96}], "scribble", given=points).per_instance[0]
    assert (row.detection, row.value) == (1, 0.6)


def test_one_detection_hits_one_instance() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (2, 2, 6, 6)))
    rows = points_in_mask(gt, [detection((0, 0, 10, 10))]).per_instance
    assert sorted((row.value, row.reason) for row in rows if row.reason) == [(0.0, TAKEN)]
    assert [row.value for row in rows if not row.reason] == [1.0]


def test_given_points_and_pixels() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    found = [detection((50, 30, 10, 10))]
    assert points_in_mask(gt, found).value == 0.0
    assert points_in_mask(gt, found, given={1: (1.0, 1.0)}).value == 1.0
    assert points_in_mask(gt, found, given={1: (50 / WIDTH, 30 / HEIGHT)}).value == 1.0
    assert points_in_mask(gt, found, given={1: (49.99 / WIDTH, 30 / HEIGHT)}).value == 0.0
    unscored = points_in_mask(gt, found, given={})
    assert (unscored.value, unscored.n_scored, unscored.reasons) == (None, 0, {NO_POINTS: 1})


def test_default_point_is_moved_into_the_mask() -> None:
    ring = np.zeros((HEIGHT, WIDTH))
    ring[5:26, 5:26] = 1
    ring[8:23, 7:24] = 0
    gt = truth(annotation(1, (5, 5, 21, 21), segmentation=rle(ring)))
    # The centre (15.5, 15.5) is in the hole; the left and right walls are nearer than top and bottom.
    top = detection((5, 5, 21, 3))
    assert points_in_mask(gt, [{**detection((5, 5, 21, 21)), "segmentation": rle(ring)}]).value == 1.0
    assert points_in_mask(gt, [top]).value == 1.0
    assert points_in_mask(gt, [detection((10, 10, 10, 10))]).value == 0.0
    without_mask = truth(annotation(1, (5, 5, 21, 21), segmentation=None))
    assert points_in_mask(without_mask, [detection((10, 10, 10, 10))]).value == 1.0


def test_scribble_by_hand() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (0, 0, 10, 10)), annotation(3, (0, 0, 9, 9)))
    line = [((x + 0.5) / WIDTH, 4.5 / HEIGHT) for x in range(10)]
    found = [detection((0, 0, 3, 10), 0.9), detection((3, 0, 7, 10), 0.5)]
    result = points_in_mask(gt, found, "scribble", given={1: line, 2: line[:3], 3: []})
    # Best in sum: the wide detection (7 of 10) for 1, the narrow one (3 of 3) for 2.
    assert [row.value for row in result.per_instance] == [pytest.approx(0.7), 1.0, None]
    assert result.value == pytest.approx(0.85)
    assert (result.n_scored, result.reasons) == (2, {NO_POINTS: 1})
    assert points_in_mask(gt, [], "scribble", given={1: line}).value == 0.0


def test_boxes_stand_for_missing_masks() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)))
    assert points_in_mask(gt, [{**detection((0, 0, 10, 10)), "segmentation": None}]).value == 1.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "box"}, "kind: 'box'"),
        ({"edition": "new"}, "edition: 'new'"),
        ({"kind": "scribble"}, "given: strict scribbles"),
        ({"edition": "paper", "given": {}}, "given: the paper edition"),
        ({"given": {1: (0.5, 1.5)}}, r"annotation 1: a point is outside \[0, 1\]"),
        ({"given": {1: (0.5, float("nan"))}}, "annotation 1: a point is outside"),
        ({"given": {1: [(0.5, 0.5), (0.1, 0.1)]}}, "annotation 1: has 2 points"),
        ({"given": {1: (0.5, 0.5, 0.5)}}, "annotation 1: points must be"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        points_in_mask(truth(annotation(1, (0, 0, 10, 10))), [], **kwargs)


@settings(max_examples=30, deadline=None)
@example(seed=83259, kind="point")
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["point", "scribble"]))
def test_invariances(seed: int, kind: Any) -> None:
    gt, detections = random_pair(seed)
    points = scribbles(gt, seed) if kind == "scribble" else None
    result = points_in_mask(gt, detections, kind, given=points)
    values = [row.value for row in result.per_instance]
    assert result.n_scored + result.n_unscored == len(gt["annotations"]) == len(values)
    assert all(value is None or 0 <= value <= 1 for value in values)

    order = np.random.default_rng(seed).permutation(len(detections))
    shuffled = points_in_mask(gt, [detections[i] for i in order], kind, given=points)
    assert [row.value for row in shuffled.per_instance] == values

    other = [detection((0, 0, WIDTH, HEIGHT), 0.99, category=3, image=image) for image in (1, 2, 3)]
    more = points_in_mask(gt, [*detections, *other], kind, given=points)
    for before, after in zip(result.per_instance, more.per_instance, strict=True):
        if before.category_id != 3:
            assert before.value == after.value

    if result.value is not None:
        assert points_in_mask(gt, perfect(gt), kind, given=points).value == 1.0
        assert points_in_mask(gt, [], kind, given=points).value == 0.0
        assert (more.value or 0) >= result.value - 1e-9


class TestPaperEdition:
    expected = json.loads((FIXTURES / "paper_expected.json").read_text())

    def run(self, kind: Any = "point", rng: Any = None) -> Any:
        gt, found = FIXTURES / "paper_gt.json", FIXTURES / "paper_detections.json"
        return points_in_mask(gt, found, kind, "paper", rng)

    def test_points_equal_the_recorded_run(self) -> None:
        result = self.run()
        assert result.value == self.expected["point"]["value"]
        assert list(result.per_image.values()) == self.expected["point"]["per_image"]
        assert result.reasons == {"no predicted mask left": result.n_unscored}
        by_id = {row.annotation_id: row for row in result.per_instance}
        for image in self.expected["matches"]:
            rows = [by_id[identifier] for identifier in image["annotation_ids"]]
            assert [row.detection for row in rows] == image["detections"]
            assert [row.value for row in rows] == image["hits"]

    def test_scribbles_equal_the_recorded_run(self) -> None:
        seed = self.expected["scribble"]["numpy_seed"]
        result = self.run("scribble", seed)
        assert result.value == self.expected["scribble"]["value"]
        assert list(result.per_image.values()) == self.expected["scribble"]["per_image"]
        assert self.run("scribble", np.random.RandomState(seed)) == result
        np.random.seed(seed)
        assert self.run("scribble") == result
        assert self.run("scribble", np.random.default_rng(seed)).n_scored == result.n_scored

    def test_is_blind_to_class_and_score_and_drops_what_is_left(self) -> None:
        gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (30, 0, 10, 10)))
        result = points_in_mask(gt, [detection((0, 0, 10, 10), 0.001, category=2)], edition="paper")
        assert (result.value, result.n_scored, result.n_unscored) == (1.0, 1, 1)

    def test_odd_masks(self) -> None:
        empty = rle(np.zeros((HEIGHT, WIDTH)))
        corner = np.zeros((HEIGHT, WIDTH))
        corner[0, 0] = 1
        gt = truth(
            annotation(1, (0, 0, 0, 0), segmentation=empty),
            annotation(2, (0, 0, 1, 1), segmentation=rle(corner)),
        )
        found = [
            detection((0, 0, 1, 1), segmentation=empty),
            detection((0, 0, 5, 5)),
            detection((0, 0, 9, 9)),
        ]
        result = points_in_mask(gt, found, "scribble", "paper", 0)
        assert (result.value, result.n_scored) == (None, 0)
        assert sorted(result.reasons) == ["all drawn points are the corner pixel (0, 0)", "the mask is empty"]
        # Both masks empty is no match, so the empty one takes the next; the corner is then covered by the last.
        points = points_in_mask(gt, found, "point", "paper")
        assert [row.detection for row in points.per_instance] == [1, 2]
        assert [row.value for row in points.per_instance] == [None, 1.0]
        with pytest.raises(ValueError, match="annotation 1: has no segmentation"):
            points_in_mask(truth(annotation(1, (0, 0, 5, 5), segmentation=None)), [], edition="paper")
