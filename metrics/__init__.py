"""Metrics of instance-conditioned image generation, usable alone.

Each metric is a pure function on plain data (`metrics.functional`, NumPy only) and a thin torchmetrics class
(`metrics.accumulators`). Names are loaded on first use, so importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.accumulators.attributes import AttributeBinding
    from metrics.accumulators.detection import (
        CocoAveragePrecision,
        LvisAveragePrecision,
        MaskIoU,
        PointInMask,
    )
    from metrics.accumulators.features import ClipScore, FrechetDistance, KernelInceptionDistance
    from metrics.functional.attribute_binding import (
        AttributeBindingResult,
        AttributeInstance,
        AttributeObservation,
        attribute_binding,
    )
    from metrics.functional.attribute_binding_paper import PaperAttributeResult, paper_attribute_binding
    from metrics.functional.average_precision import (
        AveragePrecisionResult,
        coco_average_precision,
        evaluate_average_precision,
    )
    from metrics.functional.clip_score import ClipScoreResult, clip_score
    from metrics.functional.failure_gains import FailureGains, failure_gains
    from metrics.functional.failures import (
        FailureInstance,
        FailureKind,
        FailureResult,
        classify_failures,
    )
    from metrics.functional.frechet import (
        FeatureStatistics,
        FrechetResult,
        KernelDistance,
        feature_statistics,
        frechet_distance,
        frechet_from_features,
        frechet_from_statistics,
        kernel_distance,
    )
    from metrics.functional.lvis_average_precision import (
        LvisResult,
        evaluate_lvis_average_precision,
        lvis_average_precision,
    )
    from metrics.functional.mask_iou import MaskIoUResult, mask_iou
    from metrics.functional.mask_iou_recall import (
        MaskRecallInstance,
        MaskRecallResult,
        mask_iou_recall,
    )
    from metrics.functional.matching import InstanceMatch, MatchResult, match_instances
    from metrics.functional.points_in_mask import (
        PointsInMaskInstance,
        PointsInMaskResult,
        points_in_mask,
    )
    from metrics.functional.references import (
        Reference,
        check_reference,
        load_reference,
        make_reference,
        save_reference,
    )

_MODULES = {
    "accumulators.attributes": ("AttributeBinding",),
    "accumulators.detection": ("CocoAveragePrecision", "LvisAveragePrecision", "MaskIoU", "PointInMask"),
    "accumulators.features": ("ClipScore", "FrechetDistance", "KernelInceptionDistance"),
    "functional.attribute_binding": (
        "AttributeBindingResult",
        "AttributeInstance",
        "AttributeObservation",
        "attribute_binding",
    ),
    "functional.attribute_binding_paper": ("PaperAttributeResult", "paper_attribute_binding"),
    "functional.average_precision": (
        "AveragePrecisionResult",
        "coco_average_precision",
        "evaluate_average_precision",
    ),
    "functional.clip_score": ("ClipScoreResult", "clip_score"),
    "functional.failure_gains": ("FailureGains", "failure_gains"),
    "functional.failures": ("FailureInstance", "FailureKind", "FailureResult", "classify_failures"),
    "functional.frechet": (
        "FeatureStatistics",
        "FrechetResult",
        "KernelDistance",
        "feature_statistics",
        "frechet_distance",
        "frechet_from_features",
        "frechet_from_statistics",
        "kernel_distance",
    ),
    "functional.lvis_average_precision": (
        "LvisResult",
        "evaluate_lvis_average_precision",
        "lvis_average_precision",
    ),
    "functional.mask_iou": ("MaskIoUResult", "mask_iou"),
    "functional.mask_iou_recall": ("MaskRecallInstance", "MaskRecallResult", "mask_iou_recall"),
    "functional.matching": ("InstanceMatch", "MatchResult", "match_instances"),
    "functional.points_in_mask": ("PointsInMaskInstance", "PointsInMaskResult", "points_in_mask"),
    "functional.references": (
        "Reference",
        "check_reference",
        "load_reference",
        "make_reference",
        "save_reference",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AttributeBinding",
    "AttributeBindingResult",
    "AttributeInstance",
    "AttributeObservation",
    "AveragePrecisionResult",
    "ClipScore",
    "ClipScoreResult",
    "CocoAveragePrecision",
    "FailureGains",
    "FailureInstance",
    "FailureKind",
    "FailureResult",
    "FeatureStatistics",
    "FrechetDistance",
    "FrechetResult",
    "InstanceMatch",
    "KernelDistance",
    "KernelInceptionDistance",
    "LvisAveragePrecision",
    "LvisResult",
    "MaskIoU",
    "MaskIoUResult",
    "MaskRecallInstance",
    "MaskRecallResult",
    "MatchResult",
    "PaperAttributeResult",
    "PointInMask",
    "PointsInMaskInstance",
    "PointsInMaskResult",
    "Reference",
    "attribute_binding",
    "check_reference",
    "classify_failures",
    "clip_score",
    "coco_average_precision",
    "evaluate_average_precision",
    "evaluate_lvis_average_precision",
    "failure_gains",
    "feature_statistics",
    "frechet_distance",
    "frechet_from_features",
    "frechet_from_statistics",
    "kernel_distance",
    "load_reference",
    "lvis_average_precision",
    "make_reference",
    "mask_iou",
    "mask_iou_recall",
    "match_instances",
    "paper_attribute_binding",
    "points_in_mask",
    "save_reference",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(f"metrics.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
