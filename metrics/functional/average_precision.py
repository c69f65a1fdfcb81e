"""COCO average precision and recall of detections against the requested layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.functional.ap_engines import EngineOutput, PreparedPair, get_engine
from metrics.functional.coco_data import (
    CocoSource,
    DetectionSource,
    GroundTruth,
    ImageSize,
    count_reasons,
    load_ground_truth,
    unscored_reason,
)
from metrics.functional.detection_table import DetectionTable, detection_table
from metrics.functional.match_table import MatchTable, coco_matches, gather_matches
from metrics.functional.regions import IouType, box_rle, to_rle, to_rles

__all__ = [
    "COCO_STATS",
    "AveragePrecisionResult",
    "CategoryAP",
    "coco_average_precision",
    "evaluate_average_precision",
    "prepare_pair",
]

logger = logging.getLogger(__name__)

COCO_STATS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
"""Names of COCOeval's 12 numbers, in its order."""

_NO_MASK = "no mask"


@dataclass(frozen=True, slots=True)
class CategoryAP:
    """Average precision of one category; None where there is nothing to score.

    Attributes:
        category_id: Category id.
        name: Category name.
        ap: AP over IoU .50 to .95.
        ap50: AP at IoU .50.
        ar100: Recall with up to 100 detections per image, over IoU .50 to .95.
        n_scored: Requested instances.
    """

    category_id: int
    name: str
    ap: float | None
    ap50: float | None
    ar100: float | None
    n_scored: int


@dataclass(frozen=True)
class AveragePrecisionResult:
    """Average precision of a set of images.

    Attributes:
        values: The 12 numbers by name (`COCO_STATS`); None where there is nothing to score.
        per_category: By category name (with the id where names repeat), in the order of ids.
        n_scored: Requested instances.
        n_unscored: Annotations that are ignore regions.
        reasons: How many are ignore regions, by reason.
        precision: float64 [10, 101, K, 4, 3], as in COCOeval; -1 where there is nothing to score.
        recall: float64 [10, K, 4, 3].
    """

    values: dict[str, float | None]
    per_category: dict[str, CategoryAP]
    n_scored: int
    n_unscored: int
    reasons: dict[str, int] = field(default_factory=dict)
    precision: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    recall: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    _matches: Callable[[], MatchTable | None] = field(default=lambda: None, repr=False, compare=False)

    @cached_property
    def matches(self) -> MatchTable | None:
        """Who matched whom, image by image; None where the engine does not tell."""
        return self._matches()


def coco_average_precision(
    gt: CocoSource,
    detections: DetectionSource,
    iou_type: IouType = "bbox",
    image_ids: Collection[int] | None = None,
    engine: str = "auto",
) -> dict[str, float]:
    """COCOeval's 12 numbers by name (`COCO_STATS`).

    As in COCOeval, -1 means that there is nothing to score (no requested instance of that size); see
    `evaluate_average_precision` for the same with None, counts and categories.

    Args:
        gt: COCO dictionary or path. ``iscrowd`` and ``ignore`` annotations are ignore regions: detections
            that lie in them are neither right nor wrong.
        detections: COCO results list or path; may be empty.
        iou_type: ``"bbox"`` or ``"segm"``.
        image_ids: Images to evaluate, or None for all.
        engine: ``"auto"`` or a name from `metrics.functional.ap_engines.engine_names`.

    Raises:
        ValueError: If the input is malformed, or `iou_type` or `engine` is unknown.
    """
    output, _, _ = _run(gt, detections, iou_type, image_ids, engine)
    return {name: float(value) for name, value in zip(COCO_STATS, output.stats, strict=True)}


def evaluate_average_precision(
    gt: CocoSource,
    detections: DetectionSource,
    iou_type: IouType = "bbox",
    image_ids: Collection[int] | None = None,
    engine: str = "auto",
) -> AveragePrecisionResult:
    """COCOeval's numbers with counts, categories and precision arrays.

    For ``"segm"`` an annotation without a mask becomes an ignore region of the shape of its box and is
    counted as not scored.

    Args:
        gt: See `coco_average_precision`.
        detections: See `coco_average_precision`.
        iou_type: See `coco_average_precision`.
        image_ids: See `coco_average_precision`.
        engine: See `coco_average_precision`.

    Raises:
        ValueError: As `coco_average_precision`.
    """
    output, pair, truth = _run(gt, detections, iou_type, image_ids, engine)
    annotations = pair.ground_truth["annotations"]
    reasons = [entry["ignore_reason"] for entry in annotations if entry["iscrowd"]]
    counts = dict.fromkeys(sorted(truth.categories), 0)
    for entry in annotations:
        counts[entry["category_id"]] += not entry["iscrowd"]
    per_category = {
        _unique_name(truth.categories, category_id): CategoryAP(
            category_id=category_id,
            name=truth.categories[category_id],
            ap=_mean(output.precision[:, :, column, 0, -1]),
            ap50=_mean(output.precision[0, :, column, 0, -1]),
            ar100=_mean(output.recall[:, column, 0, -1]),
            n_scored=n_scored,
        )
        for column, (category_id, n_scored) in enumerate(counts.items())
    }
    return AveragePrecisionResult(
        values={
            name: None if value < 0 else float(value)
            for name, value in zip(COCO_STATS, output.stats, strict=True)
        },
        per_category=per_category,
        n_scored=len(annotations) - len(reasons),
        n_unscored=len(reasons),
        reasons=count_reasons(reasons),
        precision=output.precision,
        recall=output.recall,
        _matches=lambda: _match_table(output, pair),
    )


def _match_table(output: EngineOutput, pair: PreparedPair) -> MatchTable | None:
    if output.evaluated is None:
        return None
    image_ids, category_ids = (
        [one["id"] for one in pair.ground_truth[part]] for part in ("images", "categories")
    )
    return gather_matches(coco_matches(output.evaluated()), image_ids, category_ids)


def _unique_name(categories: Mapping[int, str], category_id: int) -> str:
    name = categories[category_id]
    repeated = sum(other == name for other in categories.values()) > 1
    return f"{name} (id {category_id})" if repeated else name


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of the entries that exist, as COCOeval takes it."""
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _run(
    gt: CocoSource,
    detections: DetectionSource,
    iou_type: IouType,
    image_ids: Collection[int] | None,
    engine: str,
) -> tuple[EngineOutput, PreparedPair, GroundTruth]:
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type: {iou_type!r} is unknown; use 'bbox' or 'segm'")
    run = get_engine(engine)
    truth = load_ground_truth(gt)
    table = detection_table(detections, truth, image_ids)
    pair = prepare_pair(truth, table, iou_type)
    if not table.images or not truth.categories:
        # COCOeval takes an empty list of images or categories for "all of them".
        empty = np.full((10, 101, len(truth.categories), 4, 3), -1.0)
        return EngineOutput(np.full(12, -1.0), empty, empty[:, 0], lambda: ()), pair, truth
    return run(pair, iou_type), pair, truth


def prepare_pair(truth: GroundTruth, table: DetectionTable, iou_type: IouType) -> PreparedPair:
    """Checks and completes a pair, as the engines take it.

    Raises:
        ValueError: If a box, mask or size that is needed is missing.
    """
    annotations = [
        _prepared_annotation(annotation, truth.images[image_id], iou_type)
        for image_id in table.images
        for annotation in truth.annotations[image_id]
    ]
    if any(annotation["id"] == 0 for annotation in annotations):
        logger.warning("annotation id 0: COCO tools count it as never found; number annotations from 1")
    return PreparedPair(
        ground_truth={
            "images": [
                {"id": i, "height": truth.images[i].height, "width": truth.images[i].width}
                for i in table.images
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in truth.categories.items()],
        },
        table=_prepared_table(truth, table, iou_type),
    )


def _prepared_table(truth: GroundTruth, table: DetectionTable, iou_type: IouType) -> DetectionTable:
    """Detections as COCO tools take them: boxes for all or for none, masks as run lengths where needed."""
    boxless = np.isnan(table.boxes_xywh[:, 0])
    with_boxes = len(table) > 0 and not boxless[0]

    def where(position: int) -> str:
        return f"detections: entry {table.indices[position]}"

    if with_boxes and boxless.any():
        raise ValueError(
            f"{where(int(np.argmax(boxless)))}: field 'bbox' is missing; give it for every detection"
        )
    masks = table.segmentations
    # Without boxes COCO tools derive box and area from the mask, with boxes the area from the box.
    if not with_boxes and masks is not None and None in masks:
        position = next(index for index, mask in enumerate(masks) if mask is None)
        raise ValueError(f"{where(position)}: field 'segmentation' is missing; give it for every detection")
    if masks is None or (iou_type == "bbox" and with_boxes):
        return replace(table, segmentations=None)
    sizes = [truth.images[image_id].require() for image_id in table.image_ids.tolist()]
    given = [index for index, mask in enumerate(masks) if mask is not None]
    rles = to_rles(
        [masks[index] for index in given], [sizes[index] for index in given], lambda at: where(given[at])
    )
    complete: list[Any] = [None] * len(masks)
    for index, rle in zip(given, rles, strict=True):
        complete[index] = rle
    for index, mask in enumerate(complete):
        if mask is None:  # COCO tools put the box in its place
            complete[index] = box_rle(table.boxes_xywh[index].tolist(), *sizes[index])
    boxes = table.boxes_xywh if with_boxes else np.full_like(table.boxes_xywh, np.nan)
    return replace(table, segmentations=complete, boxes_xywh=boxes)


def _prepared_annotation(
    annotation: Mapping[str, Any], image: ImageSize, iou_type: IouType
) -> dict[str, Any]:
    where = f"annotation {annotation['id']}"
    box = annotation.get("bbox")
    segmentation = annotation.get("segmentation")
    reason = unscored_reason(annotation)
    if iou_type == "bbox":
        if box is None:
            raise ValueError(f"{where}: field 'bbox' is missing; add it")
        segmentation = None
    elif not segmentation:
        if box is None:
            raise ValueError(f"{where}: has neither bbox nor segmentation; add one")
        reason = reason or _NO_MASK
        x, y, w, h = box
        segmentation = to_rle([[x, y, x, y + h, x + w, y + h, x + w, y]], *image.require(), where=where)
    else:
        segmentation = to_rle(segmentation, *image.require(), where=where)
    area = annotation.get("area")
    if area is None:
        if box is None:
            raise ValueError(f"{where}: field 'area' is missing; add it")
        area = box[2] * box[3]
    return {
        "id": annotation["id"],
        "image_id": image.id,
        "category_id": annotation["category_id"],
        "bbox": None if box is None else list(box),
        "segmentation": segmentation,
        "area": area,
        # COCOeval overwrites "ignore" by "iscrowd"; the latter is what makes a region ignored.
        "iscrowd": int(reason is not None),
        "ignore_reason": reason,
    }
