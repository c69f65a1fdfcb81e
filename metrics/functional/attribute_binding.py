"""Attribute binding: did each object get the colour or texture that was asked for it?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metrics.functional.coco_data import count_reasons

__all__ = [
    "MISSING_OBJECT",
    "NO_ATTRIBUTE",
    "NO_SCORES",
    "UNKNOWN_LABEL",
    "AttributeBindingResult",
    "AttributeInstance",
    "AttributeObservation",
    "attribute_binding",
]

MISSING_OBJECT = "missing object"
NO_ATTRIBUTE = "no attribute asked"
UNKNOWN_LABEL = "the asked attribute is not among the labels"
NO_SCORES = "its crop was not scored"


@dataclass(frozen=True, slots=True)
class AttributeObservation:
    """What was asked of one requested instance, and what was seen.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        asked: Attribute that was asked for, or None.
        found: Whether a detection was assigned to the instance (see `metrics.functional.matching`).
        scores: Similarity of the crop of that detection to each label, in label order; None if not found.
        local_similarity: Similarity of the crop to the instance's own phrase, or None.
        ignored: Why the instance does not count (crowd, over the cap), or None.
    """

    image_id: int
    annotation_id: int
    asked: str | None
    found: bool
    scores: Sequence[float] | None = None
    local_similarity: float | None = None
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeInstance:
    """What one instance scored.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        asked: Attribute that was asked for, or None.
        predicted: Label of the highest similarity, or None if the object was not found or not scored.
        correct: Whether `predicted` is `asked`; False for a missing object; None if not scored.
        leaked_from: Ids of the other instances of the image that `predicted` was asked for, if it is wrong.
        reason: Why it is not scored, or ``"missing object"``; None otherwise.
    """

    image_id: int
    annotation_id: int
    asked: str | None
    predicted: str | None
    correct: bool | None
    leaked_from: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AttributeBindingResult:
    """Attribute binding of a set of images; None where there is nothing to score.

    Attributes:
        accuracy: Correct instances over scored instances; a missing object is wrong.
        accuracy_given_found: Correct instances over found instances.
        macro_accuracy: Mean over images of the accuracy of each image.
        leakage_rate: Found instances with a wrong attribute that another instance of their image was asked
            for, over found instances.
        local_similarity: Mean similarity of crops to their phrases, over found instances that have one.
        labels: The label list.
        confusion: int64 [L, L], found instances by asked (row) and predicted (column) label.
        leakage: int64 [L, L], those of `confusion` whose predicted label leaked from another instance.
        per_image: Accuracy of each image that has scored instances.
        per_instance: One entry per observation.
        n_scored: Instances that were scored, missing objects included.
        n_unscored: The others.
        n_missing: Scored instances whose object is missing.
        n_leaked: Found instances with a leaked attribute.
        n_at_risk: Found instances in images where another instance was asked for another attribute.
        n_local: Instances with a local similarity.
        reasons: How many are not scored, by reason.
    """

    accuracy: float | None
    accuracy_given_found: float | None
    macro_accuracy: float | None
    leakage_rate: float | None
    local_similarity: float | None
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    leakage: NDArray[np.int64]
    per_image: dict[int, float]
    per_instance: tuple[AttributeInstance, ...]
    n_scored: int
    n_unscored: int
    n_missing: int
    n_leaked: int
    n_at_risk: int
    n_local: int
    reasons: dict[str, int] = field(default_factory=dict)


def attribute_binding(
    observations: Sequence[AttributeObservation], labels: Sequence[str]
) -> AttributeBindingResult:
    """Score attributes by the label of highest similarity (strict edition).

    An instance counts if an attribute of the label list was asked for it. Its object's crop is given the label
    of highest similarity (the first of equals). A missing object is wrong, and counted apart.

    Args:
        observations: One per annotation.
        labels: All labels, in the order of the observations' scores.

    Raises:
        ValueError: If labels or annotation ids repeat, or scores do not fit the labels or are not finite.
    """
    if len(labels) == 0 or len(set(labels)) != len(labels):
        raise ValueError(f"labels: {list(labels)} must be a list of distinct names; correct it")
    asked_in_image: defaultdict[int, dict[int, str]] = defaultdict(dict)
    seen: set[int] = set()
    for observation in observations:
        if observation.annotation_id in seen:
            raise ValueError(
                f"observations: annotation {observation.annotation_id} occurs twice; give it once"
            )
        seen.add(observation.annotation_id)
        if observation.asked is not None and observation.ignored is None:
            asked_in_image[observation.image_id][observation.annotation_id] = observation.asked
    rows = tuple(_score(o, labels, asked_in_image[o.image_id]) for o in observations)
    return _summarise(observations, rows, tuple(labels), asked_in_image)


def _score(
    observation: AttributeObservation, labels: Sequence[str], asked_here: dict[int, str]
) -> AttributeInstance:
    predicted: str | None = None
    correct: bool | None = None
    leaked_from: tuple[int, ...] = ()
    reason = _reason(observation, labels)
    if reason == MISSING_OBJECT:
        correct = False
    elif reason is None:
        predicted = labels[int(np.argmax(_checked_scores(observation, labels)))]
        correct = predicted == observation.asked
        if not correct:
            others = (i for i, asked in asked_here.items() if asked == predicted)
            leaked_from = tuple(i for i in others if i != observation.annotation_id)
    return AttributeInstance(
        image_id=observation.image_id,
        annotation_id=observation.annotation_id,
        asked=observation.asked,
        predicted=predicted,
        correct=correct,
        leaked_from=leaked_from,
        reason=reason,
    )


def _reason(observation: AttributeObservation, labels: Sequence[str]) -> str | None:
    if observation.ignored is not None:
        return observation.ignored
    if observation.asked is None:
        return NO_ATTRIBUTE
    if observation.asked not in labels:
        return UNKNOWN_LABEL
    if not observation.found:
        return MISSING_OBJECT
    return NO_SCORES if observation.scores is None else None


def _checked_scores(observation: AttributeObservation, labels: Sequence[str]) -> NDArray[np.float64]:
    scores = np.asarray(observation.scores, dtype=np.float64)
    where = f"observations: annotation {observation.annotation_id}"
    if scores.shape != (len(labels),):
        raise ValueError(f"{where}: has scores of shape {scores.shape}; give one per label ({len(labels)})")
    if not np.isfinite(scores).all():
        raise ValueError(f"{where}: a score is not finite; correct it or give None")
    return scores


def _summarise(
    observations: Sequence[AttributeObservation],
    rows: tuple[AttributeInstance, ...],
    labels: tuple[str, ...],
    asked_in_image: dict[int, dict[int, str]],
) -> AttributeBindingResult:
    index = {label: position for position, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    leakage = np.zeros_like(confusion)
    grouped: defaultdict[int, list[bool]] = defaultdict(list)
    similarities: list[float] = []
    n_at_risk = 0
    for observation, row in zip(observations, rows, strict=True):
        if row.correct is not None:
            grouped[row.image_id].append(row.correct)
        if row.predicted is None or row.asked is None:
            continue
        cell = index[row.asked], index[row.predicted]
        confusion[cell] += 1
        leakage[cell] += bool(row.leaked_from)
        n_at_risk += any(asked != row.asked for asked in asked_in_image[row.image_id].values())
        if observation.local_similarity is not None:
            if not math.isfinite(observation.local_similarity):
                raise ValueError(
                    f"observations: annotation {row.annotation_id}: local_similarity is not finite"
                )
            similarities.append(observation.local_similarity)
    n_scored = sum(len(values) for values in grouped.values())
    n_found = int(confusion.sum())
    n_correct = int(np.trace(confusion))
    per_image = {image_id: float(np.mean(values)) for image_id, values in grouped.items()}
    skipped = [row.reason or "" for row in rows if row.correct is None]
    return AttributeBindingResult(
        accuracy=n_correct / n_scored if n_scored else None,
        accuracy_given_found=n_correct / n_found if n_found else None,
        macro_accuracy=float(np.mean(list(per_image.values()))) if per_image else None,
        leakage_rate=int(leakage.sum()) / n_found if n_found else None,
        local_similarity=float(np.mean(similarities)) if similarities else None,
        labels=labels,
        confusion=confusion,
        leakage=leakage,
        per_image=per_image,
        per_instance=rows,
        n_scored=n_scored,
        n_unscored=len(skipped),
        n_missing=n_scored - n_found,
        n_leaked=int(leakage.sum()),
        n_at_risk=n_at_risk,
        n_local=len(similarities),
        reasons=count_reasons(skipped),
    )
