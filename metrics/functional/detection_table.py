"""Detections as columns: the same checks as `metrics.functional.coco_data`, for large lists.

The columns are filled and checked as arrays. Where anything is irregular, the entries are read one by one
instead, so that the message names the entry.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.functional.coco_data import (
    Detection,
    DetectionSource,
    GroundTruth,
    detection_columns,
    load_detections,
    read_detections,
    select_images,
)

__all__ = ["DetectionTable", "detection_table"]


@dataclass(frozen=True)
class DetectionTable:
    """Detections on the evaluated images, in list order.

    Attributes:
        indices: int64 [N], positions in the list as given.
        image_ids: int64 [N].
        category_ids: int64 [N].
        scores: float64 [N], finite.
        boxes_xywh: float64 [N, 4] in pixels, finite; rows of NaN where an entry has none.
        segmentations: N masks or None, None where an entry has none; the whole is None if no entry has one.
        images: Ids of the evaluated images, in file order.
    """

    indices: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes_xywh: NDArray[np.float64]
    segmentations: Sequence[Any] | None
    images: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, kept: NDArray[np.bool_]) -> DetectionTable:
        """The detections where `kept` (bool [N]) is set."""
        return self.take(np.flatnonzero(kept))

    def take(self, rows: NDArray[np.int64]) -> DetectionTable:
        """The detections of some rows, in their order."""
        masks = self.segmentations
        return DetectionTable(
            indices=self.indices[rows],
            image_ids=self.image_ids[rows],
            category_ids=self.category_ids[rows],
            scores=self.scores[rows],
            boxes_xywh=self.boxes_xywh[rows],
            segmentations=None if masks is None else [masks[row] for row in rows.tolist()],
            images=self.images,
        )


def detection_table(
    detections: DetectionSource, gt: GroundTruth, image_ids: Collection[int] | None = None
) -> DetectionTable:
    """Reads and checks detections.

    Args:
        detections: COCO results list or path of a JSON file; may be empty.
        gt: Ground truth that the image ids refer to.
        image_ids: Images to keep, or None for all images of `gt`.

    Returns:
        The detections on the kept images.

    Raises:
        ValueError: As `load_detections`.
    """
    images = select_images(gt, image_ids)
    content, _ = read_detections(detections)
    table = _regular(content, gt, images)
    if table is not None:
        return table
    loaded = load_detections(content if content else detections, gt, image_ids)
    ordered = sorted((one for in_image in loaded.values() for one in in_image), key=lambda one: one.index)
    return _from_entries(ordered, images)


def _from_entries(entries: Sequence[Detection], images: Sequence[int]) -> DetectionTable:
    nothing = (np.nan,) * 4
    masks = [entry.segmentation for entry in entries]
    return DetectionTable(
        indices=np.array([entry.index for entry in entries], dtype=np.int64),
        image_ids=np.array([entry.image_id for entry in entries], dtype=np.int64),
        category_ids=np.array([entry.category_id for entry in entries], dtype=np.int64),
        scores=np.array([entry.score for entry in entries], dtype=np.float64),
        boxes_xywh=np.array([entry.bbox or nothing for entry in entries], dtype=np.float64).reshape(-1, 4),
        segmentations=masks if any(mask is not None for mask in masks) else None,
        images=images,
    )


def _regular(content: Sequence[Any], gt: GroundTruth, images: Sequence[int]) -> DetectionTable | None:
    columns = detection_columns(content, gt)
    if columns is None:
        return None
    image_ids, category_ids, scores, boxes = columns
    masks = [entry.get("segmentation") or None for entry in content]
    table = DetectionTable(
        indices=np.arange(len(content)),
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores,
        boxes_xywh=boxes,
        segmentations=masks if any(mask is not None for mask in masks) else None,
        images=images,
    )
    if len(images) == len(gt.images):
        return table
    return table.select(np.isin(table.image_ids, np.asarray(images, dtype=np.int64)))
