from __future__ import annotations

import numpy as np
import pytest

from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.evaluators.categories import SYNONYMS, match_categories, named_for


class _Detector:
    def __init__(self, *categories: str) -> None:
        self.categories = categories

    def detect(self, images):
        count = len(self.categories)
        boxes, scores = np.zeros((count, 4), np.float32), np.ones(count, np.float32)
        return [Detections(boxes, scores, self.categories) for _ in images]

    def identity(self):
        return {"kind": "listed"}


def test_names_match_by_spelling_then_by_synonym() -> None:
    asked = ["person", "hot_dog", "TV", "motorcycle", "sofa", "mouse_(computer_equipment)", "zebra"]
    known = ["person", "hot dog", "television", "motorbike", "couch", "mouse", "unicorn"]
    match = match_categories(asked, known)
    assert match.renames == {
        "person": "person",
        "hot dog": "hot_dog",
        "television": "TV",
        "motorbike": "motorcycle",
        "couch": "sofa",
        "mouse": "mouse_(computer_equipment)",
    }
    assert match.unmatched == ("zebra",)


def test_equal_names_come_before_similar_ones() -> None:
    match = match_categories(["couch", "sofa"], ["sofa", "couch"])
    assert match.renames == {"sofa": "sofa", "couch": "couch"}
    assert match_categories(["tv"], ["tv", "television"]).renames == {"tv": "tv"}


def test_ambiguous_names_are_refused_on_either_side() -> None:
    with pytest.raises(InputError, match="'tvmonitor' and 'television' of the detector mean the same"):
        match_categories(["tv"], ["tvmonitor", "television"])
    with pytest.raises(InputError, match="'Hot Dog' and 'hot_dog' of the benchmark mean the same"):
        match_categories(["Hot Dog", "hot_dog"], ["hot dog"])


def test_no_name_is_in_two_groups_of_synonyms() -> None:
    names = [name for group in SYNONYMS for name in group]
    assert len(names) == len(set(names))
    assert all(name == name.lower() and "_" not in name for name in names)


def test_a_detector_answers_in_the_benchmarks_words() -> None:
    detector = named_for(_Detector("tv", "couch", "dog"), ["dog", "sofa", "cat"])
    assert detector.categories == ("tv", "sofa", "dog")
    assert detector.detect([None])[0].categories == ("tv", "sofa", "dog")
    assert detector.identity() == {"kind": "listed", "renamed": {"couch": "sofa"}}
    same = _Detector("dog", "cat")
    assert named_for(same, ["cat"]) is same
    assert named_for(same, []) is same


def test_a_detector_that_knows_nothing_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"knows none of the 2 categories asked for \(cat, dog\); it knows circle"
    ):
        named_for(_Detector("circle"), ["cat", "dog"])


def test_open_vocabulary_detectors_are_told_what_to_look_for() -> None:
    class Open(_Detector):
        def with_categories(self, categories):
            return Open(*categories)

    assert named_for(Open(), ["a unicorn"]).categories == ("a unicorn",)
