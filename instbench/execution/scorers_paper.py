"""The metrics of the paper edition: what the published scripts compute, bug for bug.

AP is not here: the published number is COCO AP on all annotations, which the shared scorer computes. Numbers
of this module never stand beside strict ones under one name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.execution.crops import PUBLISHED_CROP, asked_attribute
from instbench.execution.matching import coco_results
from instbench.execution.score import NO_IMAGE, ScoreContext
from instbench.execution.scorers import NO_MASKS
from instbench.layouts.ground_truth import canvas_ground_truth
from instbench.layouts.types import Layout
from instbench.runs.records import MetricRecord
from instbench.seeds import derive_seed
from instbench.statistics.samples import RatioSamples

__all__ = ["attribute_binding", "points_in_mask"]

NO_MASK = "the annotation has no mask"
NO_CROP = "beyond the first 30 annotations, or its crop is empty"


def points_in_mask(context: ScoreContext, *, kind: Literal["point", "scribble"]) -> MetricRecord:
    """Points in mask as published: greedy matching blind to class and confidence, mean of image means.

    Every annotation with a mask takes part, whether the detector knows its category or not, and so does every
    detection. The script sets no seed for the scribble points that it draws; here one stream for the whole
    run is derived from benchmark, metric and the user's seed.
    """
    from metrics import points_in_mask as compute

    if context.evaluators.detector is None:
        raise InputError(
            f"{context.benchmark.name}: pim_{kind} needs evaluators.detector; name one in the benchmark"
        )
    reasons = _unseen(context)
    if any(seen.masks is None for seen in context.observations.detections.values()):
        reasons[NO_MASKS] += _count(context.observed)
        return _record(context, None, 0, reasons)
    truth, detections = _everything(context)
    rng = np.random.RandomState(_stream_seed(context, f"pim_{kind}"))
    result = compute(truth, detections, kind, edition="paper", rng=rng)
    for row in result.per_instance:
        if row.value is not None:
            column, value = ("hit", row.value > 0) if kind == "point" else ("share", row.value)
            context.row(row.annotation_id)[column] = value
        else:
            reasons[row.reason or "unknown"] += 1
    without = _count(context.observed) - len(result.per_instance)
    if without:
        reasons[NO_MASK] += without
    _keep_image_means(context, result.per_image)
    details = {
        "n_images": len(result.per_image),
        "averaged": "over the annotations of an image, then over images",
    }
    return _record(context, result.value, result.n_scored, reasons, **details)


def _everything(context: ScoreContext) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth with a mask, and all detections, whatever their categories."""
    truth = canvas_ground_truth(context.observed, context.benchmark.canvas_size)
    truth["annotations"] = [one for one in truth["annotations"] if "segmentation" in one]
    ids = {one["name"]: one["id"] for one in truth["categories"]}
    next_id = max(ids.values(), default=0) + 1
    seen: dict[str, Detections] = context.observations.detections
    for name in sorted({category for one in seen.values() for category in one.categories} - set(ids)):
        ids[name] = next_id
        truth["categories"].append({"id": next_id, "name": name})
        next_id += 1
    detections = []
    for layout in context.observed:
        if layout.image_key in seen:
            detections += coco_results(seen[layout.image_key], layout.image_id, ids)
    return truth, detections


def attribute_binding(
    context: ScoreContext,
    *,
    attribute: Literal["color", "texture"],
    number: Literal["accuracy", "local_similarity"],
) -> MetricRecord:
    """Attributes as published: the crop of the asked box, drawn or not; mean of image means.

    Args:
        context: The run's layouts and observations.
        attribute: "color" or "texture".
        number: "accuracy", the share of crops whose likeliest label is the asked one; or "local_similarity",
            the cosine of crop and asked phrase.
    """
    from metrics import AttributeObservation, paper_attribute_binding

    if context.evaluators.image_text is None:
        raise InputError(
            f"{context.benchmark.name}: {attribute} needs evaluators.image_text; name one in the benchmark"
        )
    reasons = _unseen(context)
    labels = context.observations.labels.get(attribute)
    if labels is None:
        reasons[f"no {attribute} asked"] += _count(context.observed)
        return _record(context, None, 0, reasons)
    observations = []
    for layout in context.observed:
        for one in layout.requested:
            key = (layout.image_key, one.annotation_id, attribute)
            scores = context.observations.crops.get(key)
            if scores is None:
                reasons[NO_CROP] += 1
                continue
            observations.append(
                AttributeObservation(
                    image_id=layout.image_id,
                    annotation_id=one.annotation_id,
                    asked=asked_attribute(one, attribute),
                    found=True,
                    scores=[float(score) for score in scores],
                    local_similarity=context.observations.phrase_scores[key],
                )
            )
    result = paper_attribute_binding(observations, labels)
    for row in result.per_instance:
        context.row(row.annotation_id)[f"{attribute}_seen"] = row.predicted
    column = 0 if number == "accuracy" else 1
    _keep_image_means(context, {image_id: means[column] for image_id, means in result.per_image.items()})
    details = {"labels": list(labels), "crop": PUBLISHED_CROP, "n_images": len(result.per_image)}
    return _record(context, getattr(result, number), result.n_scored, reasons, **details)


def _keep_image_means(context: ScoreContext, per_image: Mapping[int, float]) -> None:
    """Keeps a mean of image means: every image that has one counts once."""
    counts = np.array([layout.image_id in per_image for layout in context.layouts], dtype=np.float64)
    means = np.array([per_image.get(layout.image_id, 0.0) for layout in context.layouts], dtype=np.float64)
    context.keep(RatioSamples(means, counts))


def _stream_seed(context: ScoreContext, purpose: str) -> int:
    name, version = context.benchmark.name, context.benchmark.version
    return derive_seed(name, version, purpose, seed=context.seed) % 2**32


def _count(layouts: tuple[Layout, ...]) -> int:
    return sum(len(layout.requested) for layout in layouts)


def _unseen(context: ScoreContext) -> Counter[str]:
    missing = _count(context.layouts) - _count(context.observed)
    return Counter({NO_IMAGE: missing} if missing else {})


def _record(
    context: ScoreContext, value: float | None, n_scored: int, reasons: Counter[str], **details: Any
) -> MetricRecord:
    return MetricRecord(
        value=value if n_scored else None,
        n_scored=n_scored,
        n_unscored=_count(context.layouts) - n_scored,
        reasons=dict(sorted(reasons.items())),
        details=details,
    )
