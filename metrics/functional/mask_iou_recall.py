"""Mask IoU as DenseDiffusion measures it, after SpaText: "more like recall", in the words of its authors.

Image by image, the requested masks in file order each take the first remaining detection of their class, in the
order of the list (that of the detector's suppression, best score first), whatever its IoU. The class is absent: 0. The
mean is taken over the instances of an image, then over images.

Source: protocol of naver-ai/DenseDiffusion (evaluation notebook and issue 16): YOLOv7-mask, confidence 0.5, masks
interpolated to 64x64 and not made binary again. The published code is not repeated to the pixel here: both masks are
brought to `size` x `size` by area (each cell holds the covered share), and the IoU of shares p and q is
sum(min(p, q)) / sum(max(p, q)), which is the usual IoU for binary masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import (
    CocoSource,
    Detection,
    DetectionSource,
    count_reasons,
    load_detections,
    load_ground_truth,
    unscored_reason,
)
from metrics.functional.matching import NO_MASK
from metrics.functional.regions import RLE, annotation_regions, detection_regions

__all__ = ["MaskRecallInstance", "MaskRecallResult", "mask_iou_recall"]


@dataclass(frozen=True, slots=True)
class MaskRecallInstance:
    """What one annotation scored.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        category_id: Category id.
        iou: IoU with its detection, 0 if its class is absent; None if not scored.
        detection: Index of that detection in the list as given, or None.
        reason: Why it is not scored, or None.
    """

    image_id: int
    annotation_id: int
    category_id: int
    iou: float | None
    detection: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class MaskRecallResult:
    """The metric of a set of images.

    Attributes:
        value: Mean over images of the mean over their instances; None if nothing was scored.
        per_image: Mean of each image that has scored instances.
        per_instance: One entry per annotation.
        n_scored: Requested instances with a mask.
        n_unscored: The other annotations.
        n_missing: Scored instances whose class is absent.
        reasons: How many are not scored, by reason.
    """

    value: float | None
    per_image: dict[int, float]
    per_instance: tuple[MaskRecallInstance, ...]
    n_scored: int
    n_unscored: int
    n_missing: int
    reasons: dict[str, int] = field(default_factory=dict)


def mask_iou_recall(
    gt: CocoSource,
    detections: DetectionSource,
    *,
    image_ids: Collection[int] | None = None,
    score_threshold: float = 0.5,
    size: int = 64,
) -> MaskRecallResult:
    """Mask IoU without matching, see the module's text.

    Args:
        gt: COCO dictionary or path.
        detections: COCO results list or path, in the order in which they are taken.
        image_ids: Images to evaluate, or None for all.
        score_threshold: Smallest confidence of a detection that counts.
        size: Side in cells at which masks are compared.

    Raises:
        ValueError: If the input is malformed or `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"size: {size} must be at least 1")
    truth = load_ground_truth(gt)
    loaded = load_detections(detections, truth, image_ids)
    rows: list[MaskRecallInstance] = []
    for image_id, in_image in loaded.items():
        image, annotations = truth.images[image_id], truth.annotations[image_id]
        left = [one for one in in_image if one.score >= score_threshold]
        regions = dict(zip((one.index for one in left), detection_regions(left, image), strict=True))
        for annotation, region in zip(annotations, annotation_regions(annotations, image), strict=True):
            identity = (image_id, annotation["id"], annotation["category_id"])
            reason = unscored_reason(annotation) or (NO_MASK if region is None else None)
            if reason is not None or region is None:
                rows.append(MaskRecallInstance(*identity, None, None, reason))
                continue
            taken = _first(left, annotation["category_id"])
            iou = 0.0
            if taken is not None:
                left.remove(taken)
                iou = _soft_iou(_cells(region, size), _cells(regions[taken.index], size))
            rows.append(MaskRecallInstance(*identity, iou, None if taken is None else taken.index))
    return _summary(rows)


def _first(left: Sequence[Detection], category_id: int) -> Detection | None:
    return next((one for one in left if one.category_id == category_id), None)


def _cells(region: RLE, size: int) -> NDArray[np.float64]:
    """Covered share of each cell, float64 [size, size]."""
    mask = Image.fromarray(coco_mask.decode(region).astype(np.float32), mode="F")
    return np.asarray(mask.resize((size, size), Image.Resampling.BOX), dtype=np.float64)


def _soft_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    total = float(np.maximum(first, second).sum())
    return float(np.minimum(first, second).sum()) / total if total else 0.0


def _summary(rows: Sequence[MaskRecallInstance]) -> MaskRecallResult:
    grouped: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.iou is not None:
            grouped[row.image_id].append(row.iou)
    per_image = {image_id: float(np.mean(ious)) for image_id, ious in grouped.items()}
    skipped = [row.reason or "" for row in rows if row.iou is None]
    return MaskRecallResult(
        value=float(np.mean(list(per_image.values()))) if per_image else None,
        per_image=per_image,
        per_instance=tuple(rows),
        n_scored=len(rows) - len(skipped),
        n_unscored=len(skipped),
        n_missing=sum(row.iou is not None and row.detection is None for row in rows),
        reasons=count_reasons(skipped),
    )
