"""The built-in metrics: from a `ScoreContext` to one number with its counts.

A scorer is a function ``(context, **params) -> MetricRecord``. Plug-ins (entry point
``instbench.metrics``) are functions of the same form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from instbench.errors import InputError
from instbench.execution.crops import CROP_PADDING, asked_attribute
from instbench.execution.matching import MATCH_RULE
from instbench.execution.reference import ReferenceImages
from instbench.execution.score import NO_IMAGE, ScoreContext
from instbench.runs.records import MetricRecord

__all__ = ["attribute_accuracy", "average_precision", "fid", "mask_iou", "points_in_mask"]

NO_MASKS = "the detector gives no masks"
NO_REFERENCE = "no real images to compare with; give --images"
BROKEN_REFERENCE = "a real image is missing or unreadable"
_FEWEST_FOR_FID = 2


def _requested(context: ScoreContext) -> int:
    return sum(len(layout.requested) for layout in context.layouts)


def _record(
    context: ScoreContext, value: float | None, n_scored: int, reasons: Counter[str], **details: Any
) -> MetricRecord:
    """A fraction over requested instances; all that is not scored is counted with its reason."""
    if context.unknown_categories:
        details["unknown_categories"] = context.unknown_categories
    return MetricRecord(
        value=value if n_scored else None,
        n_scored=n_scored,
        n_unscored=_requested(context) - n_scored,
        reasons=dict(sorted(reasons.items())),
        details=details,
    )


def _need_detector(context: ScoreContext, metric: str) -> None:
    if context.evaluators.detector is None:
        raise InputError(
            f"{context.benchmark.name}: {metric} needs evaluators.detector; name one in the benchmark"
        )


def _without_masks(context: ScoreContext) -> MetricRecord | None:
    """The record of a mask metric where the detector makes no masks; None if it does."""
    if all(seen.masks is not None for seen in context.observations.detections.values()):
        return None
    reasons = Counter(context.unscored)
    reasons[NO_MASKS] += _requested(context) - sum(context.unscored.values())
    return _record(context, None, 0, reasons)


def _skipped(context: ScoreContext, rows: Iterable[tuple[int, str | None]]) -> Counter[str]:
    """Reasons of the requested instances among those that a metric left out, plus the context's own."""
    requested = {row["annotation_id"] for row in context.rows.values()}
    reasons = Counter(context.unscored)
    for annotation_id, reason in rows:
        if annotation_id in requested:
            reasons[reason or "unknown"] += 1
    return reasons


def average_precision(
    context: ScoreContext, *, iou_type: Literal["bbox", "segm"], number: str
) -> MetricRecord:
    """One of COCOeval's numbers on the asked layout at canvas size.

    Args:
        context: The run's layouts and observations.
        iou_type: "bbox" or "segm".
        number: "ap", "ap50", "ap75", "ar100", …

    Returns:
        The record; ``details.per_category`` has the same number by category where there is one.
    """
    from metrics import evaluate_average_precision

    _need_detector(context, "average precision")
    if iou_type == "segm" and (empty := _without_masks(context)) is not None:
        return empty
    if iou_type not in context.cache:
        context.cache[iou_type] = evaluate_average_precision(context.truth, context.detections, iou_type)
    result = context.cache[iou_type]
    if number not in result.values:
        raise InputError(f"average_precision has no number {number!r}; it has: {', '.join(result.values)}")
    per_category = {name: getattr(one, number, None) for name, one in result.per_category.items()}
    details = {"per_category": per_category} if any(v is not None for v in per_category.values()) else {}
    reasons = Counter(context.unscored)
    no_mask = _requested(context) - sum(reasons.values()) - result.n_scored
    if no_mask:
        reasons["no mask"] += no_mask
    return _record(context, result.values[number], result.n_scored, reasons, **details)


def mask_iou(context: ScoreContext, *, score_threshold: float = 0.3) -> MetricRecord:
    """Mean IoU of asked masks and the masks assigned to them; a missing object counts 0."""
    from metrics import mask_iou as compute

    _need_detector(context, "mask_iou")
    if (empty := _without_masks(context)) is not None:
        return empty
    result = compute(context.truth, context.detections, score_threshold=score_threshold)
    for row in result.per_instance:
        if row.scored:
            context.row(row.annotation_id)["iou_mask"] = row.iou
    skipped = _skipped(
        context, ((row.annotation_id, row.reason) for row in result.per_instance if not row.scored)
    )
    details = {"score_threshold": score_threshold, "n_missing": result.n_missing}
    return _record(context, result.value, result.n_scored, skipped, **details)


def points_in_mask(
    context: ScoreContext, *, kind: Literal["point", "scribble"], score_threshold: float = 0.3
) -> MetricRecord:
    """Share of the asked points that lie inside a detection of their class; no detection counts 0."""
    from metrics import points_in_mask as compute

    _need_detector(context, f"{kind}_hit_rate")
    given: dict[int, Any] = {}
    for layout in context.observed:
        for one in layout.requested:
            points = one.point_xy if kind == "point" else one.scribble_xy
            if points is not None:
                given[one.annotation_id] = points
    result = compute(context.truth, context.detections, kind, given=given, score_threshold=score_threshold)
    for row in result.per_instance:
        if row.value is not None:
            column, value = ("hit", row.value > 0) if kind == "point" else ("share", row.value)
            context.row(row.annotation_id)[column] = value
    left_out = ((row.annotation_id, row.reason) for row in result.per_instance if row.value is None)
    details = {"score_threshold": score_threshold, "n_missing": result.n_missing}
    return _record(context, result.value, result.n_scored, _skipped(context, left_out), **details)


def attribute_accuracy(context: ScoreContext, *, attribute: Literal["color", "texture"]) -> MetricRecord:
    """Share of instances whose found object has the asked attribute; a missing object is wrong."""
    from metrics import AttributeObservation, attribute_binding

    if context.evaluators.image_text is None or context.evaluators.detector is None:
        raise InputError(
            f"{context.benchmark.name}: {attribute}_accuracy needs evaluators.detector and evaluators.image_text"
        )
    labels = context.observations.labels.get(attribute)
    reasons = Counter(context.unscored)
    if labels is None:
        reasons[f"no {attribute} asked"] += _requested(context) - sum(reasons.values())
        return _record(context, None, 0, reasons)
    observations = []
    for layout in context.observed:
        for one in layout.requested:
            key = (layout.image_key, one.annotation_id)
            if key in context.matches:
                scores = context.observations.crops.get((*key, attribute))
                observations.append(
                    AttributeObservation(
                        image_id=layout.image_id,
                        annotation_id=one.annotation_id,
                        asked=asked_attribute(one, attribute),
                        found=context.matches[key] is not None,
                        scores=None if scores is None else [float(score) for score in scores],
                    )
                )
    result = attribute_binding(observations, labels)
    for row in result.per_instance:
        context.row(row.annotation_id)[f"{attribute}_seen"] = row.predicted
    left_out = ((row.annotation_id, row.reason) for row in result.per_instance if row.correct is None)
    details = {
        "labels": list(labels),
        "accuracy_given_found": result.accuracy_given_found,
        "leakage_rate": result.leakage_rate,
        "n_missing": result.n_missing,
        "match": dict(MATCH_RULE),
        "crop_padding": CROP_PADDING,
    }
    return _record(context, result.accuracy, result.n_scored, _skipped(context, left_out), **details)


def fid(context: ScoreContext) -> MetricRecord:
    """Frechet distance between the images and the real images of the same layouts at canvas size."""
    from metrics import frechet_from_features

    extractor = context.evaluators.features
    if extractor is None:
        raise InputError(
            f"{context.benchmark.name}: fid needs evaluators.features; name one in the benchmark"
        )
    n_images = len(context.observed)
    reasons: Counter[str] = Counter()
    if context.observations.missing:
        reasons[NO_IMAGE] = len(context.observations.missing)
    record = MetricRecord(
        value=None, n_scored=0, n_unscored=len(context.layouts), unit="distance", higher_is_better=False
    )
    reference = ReferenceImages(context.layouts, context.benchmark, context.session)
    real = None
    if n_images < _FEWEST_FOR_FID:
        reasons["fewer than two images"] = n_images
    else:
        real = reference.features(extractor)
        if real is None:
            complete = all(layout.source_path for layout in context.layouts)
            reasons[BROKEN_REFERENCE if complete else NO_REFERENCE] = n_images
    record.reasons = dict(sorted(reasons.items()))
    if real is None:
        return record
    made = np.stack([context.observations.features[layout.image_key] for layout in context.observed])
    record.value = frechet_from_features(made, real).value
    record.n_scored, record.n_unscored = n_images, len(context.layouts) - n_images
    record.details = {"reference": reference.facts(extractor)}
    return record
