"""Average precision of LVIS: a category counts in the images that were searched for it, and in no other."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from instbench.errors import InputError
from instbench.execution.score import ScoreContext
from instbench.execution.scorers import NO_MASKS
from instbench.runs.records import MetricRecord

__all__ = ["federated_average_precision", "federated_truth"]

OTHER_FREQUENCY = "a category of another frequency"
LEFT_OUT = "no mask or no area on the canvas"
NOT_FEDERATED = "the data say of no image which categories were searched for; give LVIS annotations"


def federated_truth(context: ScoreContext) -> dict[str, Any]:
    """Ground truth at canvas size with what LVIS says of images and categories.

    Categories are those that are asked for; a category that no layout has gets no number, so what the images say
    of it does not matter.
    """
    truth = context.truth
    known = {one["id"] for one in truth["categories"]}
    layouts = {layout.image_id: layout for layout in context.layouts}
    frequencies = {one.category_id: one.frequency for layout in context.layouts for one in layout.instances}
    images = []
    for image in truth["images"]:
        layout = layouts[image["id"]]
        images.append(
            image
            | {
                "neg_category_ids": [one for one in layout.absent_category_ids if one in known],
                "not_exhaustive_category_ids": [one for one in layout.partial_category_ids if one in known],
            }
        )
    categories = [one | {"frequency": frequencies[one["id"]]} for one in truth["categories"]]
    return truth | {"images": images, "categories": categories}


def federated_average_precision(
    context: ScoreContext, *, iou_type: Literal["bbox", "segm"], number: str
) -> MetricRecord:
    """One of LVIS's numbers on the asked layout at canvas size.

    Args:
        context: The run's layouts and observations.
        iou_type: "bbox" or "segm".
        number: "AP", "AP50", "AP75", "APr", "APc", "APf", ..., as the LVIS API names them.

    Returns:
        The record. What the detector gives no masks for is not scored by "segm".

    Raises:
        InputError: If the benchmark names no detector.
    """
    from metrics import evaluate_lvis_average_precision

    if context.evaluators.detector is None:
        raise InputError(
            f"{context.benchmark.name}: LVIS average precision needs evaluators.detector; name one in the benchmark"
        )
    requested = sum(len(layout.requested) for layout in context.layouts)
    reasons = Counter(context.unscored)
    left = requested - sum(reasons.values())
    seen = context.observations.detections.values()
    reason = None
    if iou_type == "segm" and any(one.masks is None for one in seen):
        reason = NO_MASKS
    elif not any(one.frequency for layout in context.layouts for one in layout.instances):
        reason = NOT_FEDERATED
    if reason is not None or not left:
        if left:
            reasons[reason or ""] += left
        return MetricRecord(
            value=None, n_scored=0, n_unscored=requested, reasons=dict(sorted(reasons.items()))
        )
    key = f"lvis:{iou_type}"
    if key not in context.cache:
        truth = federated_truth(context)
        context.cache[key] = evaluate_lvis_average_precision(truth, context.detections, iou_type)
    result = context.cache[key]
    if number not in result.values:
        raise InputError(
            f"LVIS average precision has no number {number!r}; it has: {', '.join(result.values)}"
        )
    n_scored = result.n_scored_by_frequency.get(number.removeprefix("AP"), result.n_scored)
    if n_scored < result.n_scored:
        reasons[OTHER_FREQUENCY] += result.n_scored - n_scored
    if left > result.n_scored:
        reasons[LEFT_OUT] += left - result.n_scored
    context.keep_matches(result.matches, number)
    return MetricRecord(
        value=result.values[number],
        n_scored=n_scored,
        n_unscored=requested - n_scored,
        reasons=dict(sorted(reasons.items())),
        details={"n_detections": result.n_detections, "n_unjudged": result.n_unjudged},
    )
