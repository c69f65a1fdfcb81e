"""What went wrong with each requested instance of a run, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from instbench.layouts.types import Condition
from instbench.runs.records import FailuresRecord

if TYPE_CHECKING:
    from instbench.execution.score import ScoreContext
    from metrics import AttributeInstance

__all__ = ["ATTRIBUTE_RESULTS", "score_failures"]

ATTRIBUTE_RESULTS = "attribute results"
"""Key of `ScoreContext.cache`: what the attribute metrics saw of each instance."""

_SIZED = {Condition.BOX, Condition.MASK}


def score_failures(context: ScoreContext) -> FailuresRecord | None:
    """Gives every row its kind of failure, and the run its counts.

    Boxes are compared, or masks where the model was shown masks. Where a point or a scribble alone was asked for
    the size is free: the object that covers it (the assignment of the hit rate) is the answer, whatever its box, and
    no gain in AP is computed.

    Args:
        context: The run's layouts and observations, after the metrics have filled the rows.

    Returns:
        The counts and gains, or None without a detector.
    """
    from metrics import classify_failures, failure_gains

    if context.evaluators.detector is None:
        return None
    truth, detections = context.truth, context.detections_of_all_classes
    seen: list[AttributeInstance] = context.cache.get(ATTRIBUTE_RESULTS, [])
    located = _located_by(context)
    result = classify_failures(
        truth, detections, attributes=seen, located_by=located, iou_type=_compared(context)
    )
    for row in result.per_instance:
        if row.kind is not None:
            mine = context.row(row.annotation_id)
            mine["failure"] = str(row.kind)
            mine["merged_with"] = list(row.merged_with) or None
    scored = sum(result.counts.values())
    record = FailuresRecord(
        counts={str(kind): count for kind, count in result.counts.items()},
        n_extra=result.n_extra,
        n_unscored=len(context.rows) - scored,
    )
    if not located:
        gains = failure_gains(truth, detections, result)
        record.ap50 = gains.ap50
        record.ap50_gains = {str(kind): gain for kind, gain in gains.gains.items()}
    return record


def _compared(context: ScoreContext) -> Literal["bbox"] | None:
    """Boxes, but masks (None: where everything has one) if the model was shown masks, or is the ceiling."""
    shown = context.benchmark.conditions
    masks = not shown or (Condition.MASK in shown and not context.benchmark.hybrid)
    return None if masks else "bbox"


def _located_by(context: ScoreContext) -> dict[int, int | None]:
    """By annotation id the index of the detection that covers the asked point or scribble, or None."""
    from metrics import points_in_mask

    located: dict[int, int | None] = {}
    shown = frozenset(context.benchmark.conditions)
    for kind in (Condition.POINT, Condition.SCRIBBLE):
        given: dict[int, Any] = {}
        for layout in context.layouts:
            for one in layout.requested:
                formats = shown if one.condition is None else frozenset((one.condition,))
                points = one.point_xy if kind is Condition.POINT else one.scribble_xy
                if kind in formats and not formats & _SIZED and points is not None:
                    given[one.annotation_id] = points
        if not given:
            continue
        result = points_in_mask(context.truth, context.detections, str(kind), given=given)  # type: ignore[arg-type]
        numbers = context.indices_of_all_classes
        for row in result.per_instance:
            if row.annotation_id in given and row.value is not None:
                located[row.annotation_id] = None if row.detection is None else numbers[row.detection]
    return located
