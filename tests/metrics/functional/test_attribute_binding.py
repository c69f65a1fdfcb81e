from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import AttributeObservation, attribute_binding
from metrics.functional.attribute_binding import MISSING_OBJECT, NO_ATTRIBUTE, NO_SCORES, UNKNOWN_LABEL

LABELS = ("red", "green", "blue")


def seen(
    identifier: int, asked: str | None, label: str | None, image: int = 1, **extra: object
) -> AttributeObservation:
    scores = None if label is None else [0.3 if name == label else 0.1 for name in LABELS]
    return AttributeObservation(image, identifier, asked, label is not None, scores, **extra)  # type: ignore[arg-type]


def test_by_hand() -> None:
    result = attribute_binding(
        [
            seen(1, "red", "red", local_similarity=0.4),
            seen(2, "green", "red", local_similarity=0.2),
            seen(3, "blue", None),
            seen(4, "green", "blue", image=2),
            seen(5, None, "red", image=2),
            seen(6, "mauve", "red", image=2),
            seen(7, "red", "red", image=2, ignored="over-cap"),
            AttributeObservation(3, 8, "red", True),
        ],
        LABELS,
    )
    rows = result.per_instance
    assert [row.correct for row in rows] == [True, False, False, False, None, None, None, None]
    assert [row.predicted for row in rows] == ["red", "red", None, "blue", None, None, None, None]
    assert [row.reason for row in rows] == [
        None,
        None,
        MISSING_OBJECT,
        None,
        NO_ATTRIBUTE,
        UNKNOWN_LABEL,
        "over-cap",
        NO_SCORES,
    ]
    assert [row.leaked_from for row in rows[:4]] == [(), (1,), (), ()]
    assert result.accuracy == pytest.approx(1 / 4)
    assert result.accuracy_given_found == pytest.approx(1 / 3)
    assert result.macro_accuracy == pytest.approx((1 / 3 + 0) / 2)
    assert result.leakage_rate == pytest.approx(1 / 3)
    assert result.local_similarity == pytest.approx(0.3)
    assert (result.n_scored, result.n_unscored, result.n_missing) == (4, 4, 1)
    assert (result.n_leaked, result.n_local) == (1, 2)
    # Instance 4 shares its image with a request for "mauve", which is not its own.
    assert result.n_at_risk == 3
    assert result.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert result.leakage.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert result.reasons == {NO_ATTRIBUTE: 1, UNKNOWN_LABEL: 1, "over-cap": 1, NO_SCORES: 1}


def test_attribute_of_a_missing_object_can_leak() -> None:
    result = attribute_binding([seen(1, "red", None), seen(2, "blue", "red")], LABELS)
    assert result.per_instance[1].leaked_from == (1,)
    assert (result.leakage_rate, result.accuracy_given_found, result.n_missing) == (1.0, 0.0, 1)


def test_nothing_and_everything_missing() -> None:
    nothing = attribute_binding([], LABELS)
    assert (nothing.accuracy, nothing.leakage_rate, nothing.n_scored) == (None, None, 0)
    missing = attribute_binding([seen(1, "red", None)], LABELS)
    assert (missing.accuracy, missing.accuracy_given_found, missing.n_missing) == (0.0, None, 1)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="labels"):
        attribute_binding([], ("red", "red"))
    with pytest.raises(ValueError, match="annotation 1 occurs twice"):
        attribute_binding([seen(1, "red", None), seen(1, "red", None)], LABELS)
    with pytest.raises(ValueError, match="annotation 1: has scores of shape"):
        attribute_binding([AttributeObservation(1, 1, "red", True, [0.1])], LABELS)
    with pytest.raises(ValueError, match="annotation 1: a score is not finite"):
        attribute_binding([AttributeObservation(1, 1, "red", True, [0.1, float("nan"), 0.2])], LABELS)
    with pytest.raises(ValueError, match="local_similarity is not finite"):
        attribute_binding([seen(1, "red", "red", local_similarity=float("inf"))], LABELS)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(LABELS), st.sampled_from([*LABELS, None])),
        min_size=1,
        max_size=12,
    )
)
def test_counts_add_up(entries: list[tuple[int, str, str | None]]) -> None:
    observations = [seen(i, asked, label, image) for i, (image, asked, label) in enumerate(entries)]
    result = attribute_binding(observations, LABELS)
    assert result.n_scored == len(entries)
    assert result.confusion.sum() + result.n_missing == result.n_scored
    assert np.trace(result.leakage) == 0
    assert (result.leakage <= result.confusion).all()
    assert result.n_leaked <= result.n_at_risk
    assert result.accuracy is not None
    assert 0 <= result.accuracy <= (result.accuracy_given_found or 0) <= 1
    backwards = attribute_binding(observations[::-1], LABELS)
    assert (backwards.accuracy, backwards.leakage_rate) == (result.accuracy, result.leakage_rate)
