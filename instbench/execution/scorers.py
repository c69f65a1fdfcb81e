"""The built-in metrics: from a `ScoreContext` to one number with its counts.

A scorer is a function ``(context, **params) -> MetricRecord``. Plug-ins (entry point
``instbench.metrics``) are functions of the same form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from instbench.errors import InputError
from instbench.execution.crops import CROP_PADDING, asked_attribute
from instbench.execution.failures import ATTRIBUTE_RESULTS
from instbench.execution.matching import MATCH_RULE
from instbench.execution.reference import ReferenceImages
from instbench.execution.score import NO_IMAGE, ScoreContext
from instbench.layouts.types import Condition
from instbench.runs.records import MetricRecord
from instbench.statistics.samples import RatioSamples

if TYPE_CHECKING:
    from metrics import AttributeBindingResult

__all__ = [
    "attribute_accuracy",
    "average_precision",
    "feature_distance",
    "image_clip_score",
    "mask_iou",
    "points_in_mask",
]

NO_MASKS = "the detector gives no masks"
NOT_FOUND = "the object was not found"
OTHER_FORMAT = "asked in another format"
CROWD = "crowd region, which AP ignores"
NO_REFERENCE = "no real images to compare with; give --images"
BROKEN_REFERENCE = "a real image is missing or unreadable"
_FEWEST_FOR_FID = 2
_REFERENCE = "reference images"


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


def _asked_as(context: ScoreContext, asked_as: Sequence[str] | None) -> set[int] | None:
    """Ids of the requested instances that were asked in one of these formats; None for all."""
    if asked_as is None:
        return None
    wanted = {Condition(one) for one in asked_as}
    return {
        one.annotation_id for layout in context.layouts for one in layout.requested if one.condition in wanted
    }


def _add_other_formats(context: ScoreContext, reasons: Counter[str], kept: set[int] | None) -> None:
    """Counts what can be scored but was asked in another format."""
    if kept is not None:
        scorable = [row for row in context.rows.values() if row["not_scored"] is None]
        others = sum(row["annotation_id"] not in kept for row in scorable)
        if others:
            reasons[OTHER_FORMAT] += others


def average_precision(
    context: ScoreContext,
    *,
    iou_type: Literal["bbox", "segm"],
    number: str,
    asked_as: Sequence[str] | None = None,
) -> MetricRecord:
    """One of COCOeval's numbers on the asked layout at canvas size.

    Args:
        context: The run's layouts and observations.
        iou_type: "bbox" or "segm".
        number: "ap", "ap50", "ap75", "ar100", …
        asked_as: Hybrid benchmarks: only instances asked in these formats count, the others are ignore regions.

    Returns:
        The record; ``details.per_category`` has the same number by category where there is one.
    """
    from metrics import evaluate_average_precision

    _need_detector(context, "average precision")
    if iou_type == "segm" and (empty := _without_masks(context)) is not None:
        return empty
    kept = _asked_as(context, asked_as)
    key = iou_type if asked_as is None else f"{iou_type}:{','.join(sorted(asked_as))}"
    if key not in context.cache:
        truth = context.truth if kept is None else _ignoring_others(context.truth, kept)
        context.cache[key] = evaluate_average_precision(truth, context.detections, iou_type)
    result = context.cache[key]
    if number not in result.values:
        raise InputError(f"average_precision has no number {number!r}; it has: {', '.join(result.values)}")
    context.keep_matches(result.matches, number)
    per_category = {name: getattr(one, number, None) for name, one in result.per_category.items()}
    details = {"per_category": per_category} if any(v is not None for v in per_category.values()) else {}
    reasons = Counter(context.unscored)
    _add_other_formats(context, reasons, kept)
    crowds = _crowds(context)
    if crowds:
        reasons[CROWD] += crowds
    no_mask = _requested(context) - sum(reasons.values()) - result.n_scored
    if no_mask:
        reasons["no mask"] += no_mask
    return _record(context, result.values[number], result.n_scored, reasons, **details)


def _ignoring_others(truth: dict[str, Any], kept: set[int]) -> dict[str, Any]:
    annotations = [one if one["id"] in kept else {**one, "ignore": 1} for one in truth["annotations"]]
    return {**truth, "annotations": annotations}


def _crowds(context: ScoreContext) -> int:
    """Requested crowd regions that could be scored: asked for in the paper edition, ignored by COCO's AP."""
    return sum(
        one.is_crowd and context.reason_unscored(one) is None
        for layout in context.layouts
        for one in layout.requested
    )


def mask_iou(
    context: ScoreContext, *, score_threshold: float = 0.3, asked_as: Sequence[str] | None = None
) -> MetricRecord:
    """Mean IoU of asked masks and the masks assigned to them; a missing object counts 0.

    Args:
        context: The run's layouts and observations.
        score_threshold: Smallest confidence of a detection that counts.
        asked_as: Hybrid benchmarks: the mean is over the instances asked in these formats; all take part in
            the assignment.
    """
    from metrics import mask_iou as compute

    _need_detector(context, "mask_iou")
    if (empty := _without_masks(context)) is not None:
        return empty
    result = compute(context.truth, context.detections, score_threshold=score_threshold)
    kept = _asked_as(context, asked_as)
    for row in result.per_instance:
        if row.scored and (kept is None or row.annotation_id in kept):
            context.row(row.annotation_id)["iou_mask"] = row.iou
    skipped = _skipped(
        context, ((row.annotation_id, row.reason) for row in result.per_instance if not row.scored)
    )
    values = [
        (row.annotation_id, row.iou, row.detection is None) for row in result.per_instance if row.scored
    ]
    details = {"score_threshold": score_threshold}
    return _mean_over(context, values, skipped, kept, details)


def _mean_over(
    context: ScoreContext,
    values: Sequence[tuple[int, float | None, bool]],
    skipped: Counter[str],
    kept: set[int] | None,
    details: dict[str, Any],
) -> MetricRecord:
    """The mean of (annotation id, value, missing) over the instances that are kept."""
    of_kept = [one for one in values if kept is None or one[0] in kept]
    reasons = Counter(skipped)
    if len(of_kept) < len(values):
        reasons[OTHER_FORMAT] += len(values) - len(of_kept)
    numbers = [value for _, value, _ in of_kept if value is not None]
    context.keep_units((one, value) for one, value, _ in of_kept if value is not None)
    details = {**details, "n_missing": sum(missing for *_, missing in of_kept)}
    mean = float(np.mean(numbers)) if numbers else None
    return _record(context, mean, len(numbers), reasons, **details)


def points_in_mask(
    context: ScoreContext,
    *,
    kind: Literal["point", "scribble"],
    score_threshold: float = 0.3,
    asked_as: Sequence[str] | None = None,
) -> MetricRecord:
    """Share of the asked points that lie inside a detection of their class; no detection counts 0.

    Args:
        context: The run's layouts and observations.
        kind: "point" or "scribble".
        score_threshold: Smallest confidence of a detection that counts.
        asked_as: Hybrid benchmarks: the mean is over the instances asked in these formats; all take part in
            the assignment.
    """
    from metrics import points_in_mask as compute

    _need_detector(context, f"{kind}_hit_rate")
    given: dict[int, Any] = {}
    for layout in context.layouts:
        for one in layout.requested:
            points = one.point_xy if kind == "point" else one.scribble_xy
            if points is not None:
                given[one.annotation_id] = points
    result = compute(context.truth, context.detections, kind, given=given, score_threshold=score_threshold)
    kept = _asked_as(context, asked_as)
    for row in result.per_instance:
        if row.value is not None and (kept is None or row.annotation_id in kept):
            column, value = ("hit", row.value > 0) if kind == "point" else ("share", row.value)
            context.row(row.annotation_id)[column] = value
    left_out = ((row.annotation_id, row.reason) for row in result.per_instance if row.value is None)
    values = [
        (row.annotation_id, row.value, row.detection is None)
        for row in result.per_instance
        if row.value is not None
    ]
    details = {"score_threshold": score_threshold}
    return _mean_over(context, values, _skipped(context, left_out), kept, details)


def _attribute_result(context: ScoreContext, attribute: str) -> AttributeBindingResult | None:
    """What the image-text model saw of an attribute; None if none was asked for. Fills the rows once."""
    from metrics import AttributeObservation, attribute_binding

    if context.evaluators.image_text is None or context.evaluators.detector is None:
        raise InputError(
            f"{context.benchmark.name}: {attribute}_accuracy needs evaluators.detector and evaluators.image_text"
        )
    known = context.cache.get(attribute)
    labels = context.observations.labels.get(attribute)
    if known is not None or labels is None:
        return cast("AttributeBindingResult | None", known)
    observations = []
    for layout in context.layouts:
        for one in layout.requested:
            key = (layout.image_key, one.annotation_id)
            if key in context.matches:
                scores = context.observations.crops.get((*key, attribute))
                similarity = context.observations.phrase_scores.get((*key, attribute))
                context.rows[key]["similarity"] = similarity
                observations.append(
                    AttributeObservation(
                        image_id=layout.image_id,
                        annotation_id=one.annotation_id,
                        asked=asked_attribute(one, attribute),
                        found=context.matches[key] is not None,
                        scores=None if scores is None else [float(score) for score in scores],
                        local_similarity=similarity,
                    )
                )
    result = attribute_binding(observations, labels)
    for row in result.per_instance:
        mine = context.row(row.annotation_id)
        mine[f"{attribute}_seen"], mine[f"{attribute}_correct"] = row.predicted, row.correct
        if row.leaked_from:
            mine["leaked_from"] = list(row.leaked_from)
    context.cache[attribute] = result
    context.cache.setdefault(ATTRIBUTE_RESULTS, []).extend(result.per_instance)
    return result


def attribute_accuracy(
    context: ScoreContext,
    *,
    attribute: Literal["color", "texture"],
    number: Literal["accuracy", "accuracy_given_found", "leakage_rate", "local_similarity"] = "accuracy",
) -> MetricRecord:
    """A number of attribute binding: for each asked object, what the image-text model sees where it was found.

    Args:
        context: The run's layouts and observations.
        attribute: "color" or "texture".
        number: "accuracy" (a missing object is wrong), "accuracy_given_found", "leakage_rate" (found objects with a
            wrong attribute that another instance was asked for) or "local_similarity" (cosine of crop and phrase).
    """
    result = _attribute_result(context, attribute)
    reasons = Counter(context.unscored)
    if result is None:
        reasons[f"no {attribute} asked"] += _requested(context) - sum(reasons.values())
        return _record(context, None, 0, reasons)
    left_out = ((row.annotation_id, row.reason) for row in result.per_instance if row.correct is None)
    skipped = _skipped(context, left_out)
    _keep_attributes(context, result, number)
    details: dict[str, Any] = {
        "labels": list(result.labels),
        "match": dict(MATCH_RULE),
        "crop_padding": CROP_PADDING,
    }
    n_scored = result.n_scored
    if number == "accuracy":
        details |= {
            "accuracy_given_found": result.accuracy_given_found,
            "leakage_rate": result.leakage_rate,
            "n_missing": result.n_missing,
            "confusion": result.confusion.tolist(),
        }
    else:
        n_scored = result.n_local if number == "local_similarity" else result.n_scored - result.n_missing
        skipped[NOT_FOUND] += result.n_scored - n_scored
    if number == "leakage_rate":
        details |= {"leakage": result.leakage.tolist(), "n_at_risk": result.n_at_risk}
    record = _record(context, getattr(result, number), n_scored, +skipped, **details)
    record.higher_is_better = number != "leakage_rate"
    return record


def _keep_attributes(context: ScoreContext, result: AttributeBindingResult, number: str) -> None:
    """Keeps the values of the objects behind a number of attribute binding."""
    found = [row for row in result.per_instance if row.predicted is not None]
    if number == "accuracy":
        values = [(row.annotation_id, row.correct) for row in result.per_instance if row.correct is not None]
    elif number == "accuracy_given_found":
        values = [(row.annotation_id, bool(row.correct)) for row in found]
    elif number == "leakage_rate":
        values = [(row.annotation_id, bool(row.leaked_from)) for row in found]
    else:
        similar = [(row.annotation_id, context.row(row.annotation_id).get("similarity")) for row in found]
        context.keep_units((one, float(value)) for one, value in similar if value is not None)
        return
    context.keep_units((one, float(value)) for one, value in values)


def image_clip_score(context: ScoreContext) -> MetricRecord:
    """Similarity of whole images to their captions, 100 times the cosine; images that are missing are left out."""
    from metrics import clip_score

    if context.evaluators.image_text is None:
        raise InputError(
            f"{context.benchmark.name}: clip_score needs evaluators.image_text; name one in the benchmark"
        )
    seen = context.observations.caption_scores
    scores = [seen.get(layout.image_key) for layout in context.layouts]
    result = clip_score(scores)
    if result.value is not None:
        known = np.array([score is not None for score in scores], dtype=np.float64)
        each = np.array([clip_score([score]).value or 0.0 for score in scores], dtype=np.float64)
        context.keep(RatioSamples(each * known, known))
    return MetricRecord(
        value=result.value,
        n_scored=result.n_scored,
        n_unscored=result.n_unscored,
        unit="score",
        reasons={NO_IMAGE: result.n_unscored} if result.n_unscored else {},
    )


def _reference_images(context: ScoreContext) -> ReferenceImages:
    """The reference of both distances, whose files are hashed once."""
    if _REFERENCE not in context.cache:
        context.cache[_REFERENCE] = ReferenceImages(context.layouts, context.benchmark, context.session)
    reference: ReferenceImages = context.cache[_REFERENCE]
    return reference


def feature_distance(context: ScoreContext, *, kind: Literal["fid", "kid"]) -> MetricRecord:
    """Distance between the features of the images and of the real images of the same layouts at canvas size.

    Images that are missing are left out and counted.

    Args:
        context: The run's layouts and observations.
        kind: "fid", the Frechet distance, or "kid", the kernel distance.
    """
    from instbench.statistics.distances import frechet_samples, kernel_samples
    from metrics import frechet_from_features, kernel_distance

    extractor = context.evaluators.features
    if extractor is None:
        raise InputError(
            f"{context.benchmark.name}: {kind} needs evaluators.features; name one in the benchmark"
        )
    n_images = len(context.observed)
    reasons: Counter[str] = Counter()
    if context.observations.missing:
        reasons[NO_IMAGE] = len(context.observations.missing)
    record = MetricRecord(
        value=None, n_scored=0, n_unscored=len(context.layouts), unit="distance", higher_is_better=False
    )
    reference = _reference_images(context)
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
    missing = context.observations.missing
    present = np.array([layout.image_key not in missing for layout in context.layouts])
    record.details = {"reference": reference.facts(extractor)}
    if kind == "fid":
        record.value = frechet_from_features(made, real).value or 0.0  # two images or more: there is a value
    else:
        distance = kernel_distance(made, real[present], paired=True)
        record.value = distance.mean
        record.details |= {"std": distance.std, "subsets": 100, "subset_size": min(1000, len(made))}
    keep = frechet_samples if kind == "fid" else kernel_samples
    context.keep(keep(record.value, made, real, present))
    record.n_scored, record.n_unscored = n_images, len(context.layouts) - n_images
    return record
