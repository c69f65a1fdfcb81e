"""Metrics on detections: average precision, mask IoU and points in mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metrics.accumulators.records import RecordMetric
from metrics.functional.average_precision import (
    COCO_STATS,
    AveragePrecisionResult,
    evaluate_average_precision,
)
from metrics.functional.lvis_average_precision import (
    LVIS_STATS,
    LvisResult,
    evaluate_lvis_average_precision,
)
from metrics.functional.mask_iou import MaskIoUResult, mask_iou
from metrics.functional.matching import SCORE_THRESHOLD
from metrics.functional.points_in_mask import (
    Edition,
    PointKind,
    PointsInMaskResult,
    points_in_mask,
)
from metrics.functional.points_in_mask_paper import NumpyRandom
from metrics.functional.regions import IouType

__all__ = ["CocoAveragePrecision", "LvisAveragePrecision", "MaskIoU", "PointInMask"]


def _check_image(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
) -> None:
    for kind, entries in (("annotation", annotations), ("detection", detections)):
        for entry in entries:
            if entry.get("image_id") != image["id"]:
                raise ValueError(
                    f"{kind} of image {entry.get('image_id')} given with image {image['id']}; "
                    "update image by image"
                )


class _LayoutMetric(RecordMetric):
    """Gathers images with their annotations and detections.

    Args:
        categories: Category names by id.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    def __init__(self, categories: Mapping[int, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.categories = dict(categories)

    def update(
        self,
        image: Mapping[str, Any],
        annotations: Sequence[Mapping[str, Any]],
        detections: Sequence[Mapping[str, Any]],
        given: Mapping[int, Sequence[Any]] | None = None,
    ) -> None:
        """Add one image.

        Args:
            image: COCO image entry (``id``, ``height``, ``width``).
            annotations: COCO annotations of the image.
            detections: COCO results of the image.
            given: By annotation id, the points that the generator was shown (points in mask only).

        Raises:
            ValueError: If an annotation or a detection is of another image.
        """
        _check_image(image, annotations, detections)
        points = None if given is None else [[key, value] for key, value in given.items()]
        self._append(
            [
                {
                    "image_id": image["id"],
                    "image": {key: image.get(key) for key in ("id", "height", "width")},
                    "annotations": [dict(entry) for entry in annotations],
                    "detections": [dict(entry) for entry in detections],
                    "given": points,
                }
            ]
        )

    def _gathered(self) -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, Sequence[Any]] | None]:
        """Ground truth, detections and points of all images, images by id."""
        records = self._records("image_id")
        gt = {
            "images": [record["image"] for record in records],
            "annotations": [entry for record in records for entry in record["annotations"]],
            "categories": [{"id": key, "name": name} for key, name in self.categories.items()],
        }
        detections = [entry for record in records for entry in record["detections"]]
        points = [record["given"] for record in records if record["given"] is not None]
        given = {key: value for part in points for key, value in part} if points else None
        return gt, detections, given


def _tensor(value: float | None) -> torch.Tensor:
    return torch.tensor(float("nan") if value is None else value, dtype=torch.float64)


class CocoAveragePrecision(_LayoutMetric):
    """COCO average precision; `compute` returns the 12 numbers by name, NaN where nothing is to be scored.

    Args:
        categories: Category names by id.
        iou_type: ``"bbox"`` or ``"segm"``.
        engine: Name of the engine.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self, categories: Mapping[int, str], iou_type: IouType = "bbox", engine: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(categories, **kwargs)
        self.iou_type: IouType = iou_type
        self.engine = engine
        self.result: AveragePrecisionResult | None = None

    def compute(self) -> dict[str, torch.Tensor]:
        """See `metrics.functional.average_precision.evaluate_average_precision`."""
        gt, detections, _ = self._gathered()
        self.result = evaluate_average_precision(gt, detections, self.iou_type, engine=self.engine)
        return {name: _tensor(self.result.values[name]) for name in COCO_STATS}


class LvisAveragePrecision(RecordMetric):
    """LVIS average precision; `compute` returns the numbers by name, NaN where nothing is to be scored.

    Args:
        categories: LVIS category entries (``id``, ``name``, ``frequency``).
        iou_type: ``"bbox"`` or ``"segm"``.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self, categories: Sequence[Mapping[str, Any]], iou_type: IouType = "bbox", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.categories = [dict(entry) for entry in categories]
        self.iou_type: IouType = iou_type
        self.result: LvisResult | None = None

    def update(
        self,
        image: Mapping[str, Any],
        annotations: Sequence[Mapping[str, Any]],
        detections: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add one image.

        Args:
            image: LVIS image entry, with ``neg_category_ids`` and ``not_exhaustive_category_ids``.
            annotations: Annotations of the image.
            detections: COCO results of the image.

        Raises:
            ValueError: If an annotation or a detection is of another image.
        """
        _check_image(image, annotations, detections)
        fields = ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")
        self._append(
            [
                {
                    "image_id": image["id"],
                    "image": {key: image.get(key) for key in fields},
                    "annotations": [dict(entry) for entry in annotations],
                    "detections": [dict(entry) for entry in detections],
                }
            ]
        )

    def compute(self) -> dict[str, torch.Tensor]:
        """See `metrics.functional.lvis_average_precision.evaluate_lvis_average_precision`."""
        records = self._records("image_id")
        gt = {
            "images": [record["image"] for record in records],
            "annotations": [entry for record in records for entry in record["annotations"]],
            "categories": self.categories,
        }
        detections = [entry for record in records for entry in record["detections"]]
        self.result = evaluate_lvis_average_precision(gt, detections, self.iou_type)
        return {name: _tensor(self.result.values[name]) for name in LVIS_STATS}


class MaskIoU(_LayoutMetric):
    """Mean mask IoU of requested instances.

    Args:
        categories: Category names by id.
        score_threshold: Smallest confidence of a detection that counts.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self, categories: Mapping[int, str], score_threshold: float = SCORE_THRESHOLD, **kwargs: Any
    ) -> None:
        super().__init__(categories, **kwargs)
        self.score_threshold = score_threshold
        self.result: MaskIoUResult | None = None

    def compute(self) -> torch.Tensor:
        """See `metrics.functional.mask_iou.mask_iou`."""
        gt, detections, _ = self._gathered()
        self.result = mask_iou(gt, detections, score_threshold=self.score_threshold)
        return _tensor(self.result.value)


class PointInMask(_LayoutMetric):
    """Points in mask, for points and scribbles, in both editions.

    Args:
        categories: Category names by id.
        kind: ``"point"`` or ``"scribble"``.
        edition: ``"strict"`` or ``"paper"``. In the paper edition images are taken by id.
        score_threshold: Strict only: smallest confidence of a detection that counts.
        rng: Paper scribbles only; give a seed, so that all processes draw the same points.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(
        self,
        categories: Mapping[int, str],
        kind: PointKind = "point",
        edition: Edition = "strict",
        score_threshold: float = SCORE_THRESHOLD,
        rng: NumpyRandom = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(categories, **kwargs)
        self.kind: PointKind = kind
        self.edition: Edition = edition
        self.score_threshold = score_threshold
        self.rng = rng
        self.result: PointsInMaskResult | None = None

    def compute(self) -> torch.Tensor:
        """See `metrics.functional.points_in_mask.points_in_mask`."""
        gt, detections, given = self._gathered()
        self.result = points_in_mask(
            gt,
            detections,
            kind=self.kind,
            edition=self.edition,
            rng=self.rng,
            given=given,
            score_threshold=self.score_threshold,
        )
        return _tensor(self.result.value)
