"""The published rules: the formats of a forward pass, the caption, the names and the slots."""

from collections import Counter

import numpy as np
import pytest

from reference_model.training.locations import NAME_LEVEL, Locations
from reference_model.training.rules import PaperRules

ONE_INSTANCE_BOXES = [(0, 0, 0.2, 0.2), (0, 0, 0.9, 0.9), (0.5, 0.5, 1, 1)]


def locations(boxes=ONE_INSTANCE_BOXES, masks=(True, True, False)):
    count = len(boxes)
    return Locations(
        size=(8, 8),
        boxes=np.asarray(boxes, dtype=np.float32),
        points=np.zeros((count, 2), np.float32),
        mask_points=np.zeros((count, 256, 2), np.float16),
        starts=np.asarray([0, count, count]),
        phrase_ids=np.asarray([[1, 1, 1, 1, 2]] * count),
        caption_starts=np.asarray([0, 3, 4]),
        caption_ids=np.asarray([1, 2, 3, 4]),
        phrases=["", "a red dog", "dog"],
        captions=["", "one", "two", "three", "four"],
        rle_starts=np.concatenate([[0], np.cumsum(masks)]),
        rle=np.zeros(sum(masks), np.uint8),
    )


def test_formats_of_a_forward_pass_are_as_often_kept_as_published():
    rules, rng = PaperRules(), np.random.default_rng(0)
    seen = Counter(tuple(rules.kept(rng).tolist()) for _ in range(20_000))
    # By hand, in the published order. Box and point only leave with a dropped mask.
    keep, drop = 0.9, 0.1
    not_point_only = 0.9
    expected = {
        (True, True, True, True): keep * keep * not_point_only * 0.9,
        (True, True, False, True): keep * not_point_only * (drop * 0.9 + 0.1),
        (True, True, True, False): drop * keep * keep * not_point_only,
        (True, True, False, False): drop * keep * drop * not_point_only,
        (False, True, True, False): drop * drop * keep * keep * not_point_only,
        (False, False, True, False): drop * drop * drop * keep * not_point_only,
    }
    point_alone = drop * drop * drop * keep * not_point_only  # the point survives, scribble dropped
    expected[(False, True, False, False)] = 0.1 + point_alone
    expected[(True, False, False, False)] = drop**4 * not_point_only  # nothing left: the box
    assert sum(expected.values()) == pytest.approx(1.0)
    assert set(seen) <= set(expected)
    for formats, share in expected.items():
        assert seen[formats] / 20_000 == pytest.approx(share, abs=0.01), formats


def test_largest_boxes_take_the_slots_and_all_samples_share_the_formats():
    rules, data = PaperRules(keep_point_only=0.0, no_grounding=0.0), locations()
    for seed in range(20):
        choices = list(rules.choices(data, np.array([0, 0, 0]), 2, np.random.default_rng(seed)))
        for choice in choices:
            assert choice.instances.tolist() == [1, 2]
            assert choice.exists.all()
            assert not choice.shown[1, 2:].any()  # no mask, so no scribble and no mask
        assert len({tuple(choice.shown[0].tolist()) for choice in choices}) == 1


def test_caption_phrase_and_mirror_have_their_shares():
    rules, data, rng = PaperRules(), locations(), np.random.default_rng(1)
    many = [choice for _ in range(300) for choice in rules.choices(data, np.zeros(10, np.int64), 30, rng)]
    captions = Counter(choice.caption for choice in many)
    assert captions[0] / 3000 == pytest.approx(0.5, abs=0.03)
    assert min(captions[1], captions[2], captions[3]) > 400
    names = np.concatenate([choice.phrases for choice in many])
    assert set(names.tolist()) == {1, 2}
    assert (names == data.phrase_ids[0, NAME_LEVEL]).mean() == pytest.approx(0.5, abs=0.02)
    assert np.mean([choice.flipped for choice in many]) == pytest.approx(0.5, abs=0.03)


def test_a_tenth_of_the_forward_passes_shows_no_instances():
    rules, data, rng = PaperRules(), locations(), np.random.default_rng(2)
    passes = [list(rules.choices(data, np.zeros(3, np.int64), 30, rng)) for _ in range(2000)]
    empty = [all(len(choice.instances) == 0 for choice in choices) for choices in passes]
    assert np.mean(empty) == pytest.approx(0.1, abs=0.02)
    assert all(
        any(len(choice.instances) for choice in choices) != nothing
        for choices, nothing in zip(passes, empty, strict=True)
    )
    captions = [
        choice.caption > 0
        for choices, nothing in zip(passes, empty, strict=True)
        if nothing
        for choice in choices
    ]
    assert np.mean(captions) == pytest.approx(0.5, abs=0.08)


def test_an_image_without_instances_shows_none():
    (choice,) = PaperRules().choices(locations(), np.array([1]), 30, np.random.default_rng(0))
    assert len(choice.instances) == len(choice.phrases) == len(choice.shown) == 0
    assert choice.caption in (0, 4)
