"""How much average precision each kind of failure costs.

As TIDE does for detectors: all failures of one kind are put right by an oracle, everything else stays, and AP50 is
computed again. The gain is the difference. The gains need not add up to what is missing to 1, and a fix may lower
the precision of detections that rank below it by a little, so that a gain can be slightly negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics.functional.average_precision import evaluate_average_precision
from metrics.functional.coco_data import CocoSource, DetectionSource, read_detections, read_ground_truth
from metrics.functional.failures import FailureInstance, FailureKind, FailureResult

__all__ = ["FailureGains", "failure_gains"]

_ANSWERED = (
    FailureKind.CORRECT,
    FailureKind.DUPLICATED,
    FailureKind.WRONG_ATTRIBUTE,
    FailureKind.LEAKED_ATTRIBUTE,
)
_ATTRIBUTES = (FailureKind.WRONG_ATTRIBUTE, FailureKind.LEAKED_ATTRIBUTE)


@dataclass(frozen=True, slots=True)
class FailureGains:
    """AP50 as it is, and what putting each kind right would add.

    Attributes:
        ap50: AP50 of what was asked: an object with a wrong attribute is no right answer. None if there is
            nothing to score.
        gains: By kind, AP50 with that kind put right minus `ap50`; 0 for a kind that does not occur.
        fixed: AP50 with all kinds put right together.
    """

    ap50: float | None
    gains: dict[FailureKind, float]
    fixed: float | None


def failure_gains(gt: CocoSource, detections: DetectionSource, failures: FailureResult) -> FailureGains:
    """Computes the gains.

    The oracle's fixes: a missing object is drawn as asked (score 1); a misplaced one moves to the asked place; a wrong
    class becomes the asked one; duplicates go; a merged object is replaced by those it stands for; a wrong attribute
    becomes the asked one.

    Args:
        gt: The ground truth of `failures`.
        detections: The detections of `failures`.
        failures: From `classify_failures`.

    Raises:
        ValueError: If the input is malformed.
    """
    truth, _ = read_ground_truth(gt)
    given, _ = read_detections(detections)
    annotations = {one["id"]: one for one in truth["annotations"]}
    by_kind: defaultdict[FailureKind, list[FailureInstance]] = defaultdict(list)
    for row in failures.per_instance:
        if row.kind is not None and row.kind is not FailureKind.CORRECT:
            by_kind[row.kind].append(row)
    answers = {row.detection for row in failures.per_instance if row.kind in _ANSWERED}
    fixer = _Fixer(given, annotations, answers, failures.iou_type == "segm")
    nobody = 1 + max((one["id"] for one in truth["categories"]), default=0)

    def ap50(kinds: Sequence[FailureKind]) -> float | None:
        edits = _Edits({}, [])
        for kind in _ATTRIBUTES:
            if kind not in kinds:  # not what was asked for
                for row in by_kind[kind]:
                    if row.detection is not None:
                        edits.changed[row.detection] = {"category_id": nobody}
        for kind in kinds:
            for row in by_kind[kind]:
                fixer.fix(row, edits)
        result = evaluate_average_precision(truth, fixer.edited(edits), failures.iou_type)
        return result.values["ap50"]

    base = ap50(())
    if base is None:
        return FailureGains(None, dict.fromkeys(_failing(), 0.0), None)
    gains = {}
    for kind in _failing():
        better = ap50((kind,)) if by_kind[kind] else base
        gains[kind] = (base if better is None else better) - base
    return FailureGains(base, gains, ap50(_failing()))


def _failing() -> list[FailureKind]:
    return [kind for kind in FailureKind if kind is not FailureKind.CORRECT]


@dataclass(frozen=True, slots=True)
class _Edits:
    """Changes of detections by index (None removes one), and new detections."""

    changed: dict[int, dict[str, Any] | None]
    added: list[dict[str, Any]]


class _Fixer:
    """Puts failures right in a list of detections."""

    def __init__(
        self,
        given: Sequence[Mapping[str, Any]],
        annotations: Mapping[int, Mapping[str, Any]],
        answers: set[int | None],
        masks: bool,
    ) -> None:
        self._given = given
        self._answers = answers
        self._annotations = annotations
        self._fields = ("bbox", "segmentation") if masks else ("bbox",)

    def _place(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        return {name: annotation[name] for name in self._fields if annotation.get(name) is not None}

    def _new(self, annotation: Mapping[str, Any], score: float) -> dict[str, Any]:
        same = {name: annotation[name] for name in ("image_id", "category_id")}
        return {**same, **self._place(annotation), "score": score}

    def fix(self, row: FailureInstance, edits: _Edits) -> None:
        annotation = self._annotations[row.annotation_id]
        if row.kind is FailureKind.MISSING or row.detection is None:
            edits.added.append(self._new(annotation, 1.0))
        elif row.kind is FailureKind.MISPLACED:
            edits.changed[row.detection] = self._place(annotation)
        elif row.kind is FailureKind.WRONG_CLASS:
            edits.changed[row.detection] = {"category_id": annotation["category_id"]}
        elif row.kind is FailureKind.DUPLICATED:
            edits.changed.update(dict.fromkeys(row.others))
        elif row.kind is FailureKind.MERGED:
            if row.detection not in self._answers:
                edits.changed[row.detection] = None
            edits.added.append(self._new(annotation, float(self._given[row.detection]["score"])))

    def edited(self, edits: _Edits) -> list[Mapping[str, Any]]:
        result: list[Mapping[str, Any]] = []
        for index, entry in enumerate(self._given):
            change = edits.changed.get(index, {})
            if change is not None:
                result.append({**entry, **change} if change else entry)
        return result + edits.added
