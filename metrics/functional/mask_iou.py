"""Mask IoU: how well the shapes that were asked for came out (strict edition)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from metrics.functional.coco_data import (
    CocoSource,
    DetectionSource,
    count_reasons,
    load_detections,
    load_ground_truth,
)
from metrics.functional.matching import SCORE_THRESHOLD, InstanceMatch, match_loaded

__all__ = ["NO_DETECTION_MASKS", "MaskIoUResult", "mask_iou"]

NO_DETECTION_MASKS = "the detections have no masks"


@dataclass(frozen=True, slots=True)
class MaskIoUResult:
    """Mask IoU of a set of images.

    Attributes:
        value: Mean IoU over requested instances, missing ones counting 0; None if there are none.
        per_image: Mean over the requested instances of each image that has any.
        per_instance: One entry per annotation; `iou` is None where it is not scored.
        n_scored: Requested instances with a mask.
        n_unscored: The other annotations.
        n_missing: Scored instances without a detection.
        reasons: How many are not scored, by reason.
    """

    value: float | None
    per_image: dict[int, float]
    per_instance: tuple[InstanceMatch, ...]
    n_scored: int
    n_unscored: int
    n_missing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def mask_iou(
    gt: CocoSource,
    detections: DetectionSource,
    *,
    image_ids: Collection[int] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
) -> MaskIoUResult:
    """Mean over requested instances of the IoU with the mask of the detection assigned to it.

    Detections are assigned one to one within a category so that the sum of IoU is greatest; only detections
    with a score of at least `score_threshold` count; an instance without a detection counts 0. If no
    detection has a mask, nothing is scored.

    Args:
        gt: COCO dictionary or path.
        detections: COCO results list or path.
        image_ids: Images to evaluate, or None for all.
        score_threshold: Smallest confidence of a detection that counts.

    Raises:
        ValueError: If the input is malformed, or only some detections have masks.
    """
    truth = load_ground_truth(gt)
    loaded = load_detections(detections, truth, image_ids)
    everything = [detection for in_image in loaded.values() for detection in in_image]
    without = [detection for detection in everything if detection.segmentation is None]
    if without and len(without) < len(everything):
        raise ValueError(
            f"detections: entry {without[0].index}: has no segmentation although others have; "
            "give a mask for every detection"
        )
    matched = match_loaded(
        truth,
        loaded,
        iou_type="bbox" if without else "segm",
        score_threshold=score_threshold,
        min_iou=0.0,
        hit_iou=None,
    )
    rows = matched.per_instance
    if without:
        rows = tuple(_unscored(row) for row in rows)
    per_image: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.iou is not None:
            per_image[row.image_id].append(row.iou)
    values = [row.iou for row in rows if row.iou is not None]
    skipped = [row.reason or "" for row in rows if not row.scored]
    return MaskIoUResult(
        value=float(np.mean(values)) if values else None,
        per_image={image_id: float(np.mean(ious)) for image_id, ious in per_image.items()},
        per_instance=rows,
        n_scored=len(values),
        n_unscored=len(skipped),
        n_missing=sum(row.scored and not row.found for row in rows),
        reasons=count_reasons(skipped),
    )


def _unscored(row: InstanceMatch) -> InstanceMatch:
    return InstanceMatch(
        image_id=row.image_id,
        annotation_id=row.annotation_id,
        category_id=row.category_id,
        detection=None,
        score=None,
        iou=None,
        scored=False,
        reason=NO_DETECTION_MASKS if row.scored else row.reason,
    )
