"""One-to-one assignment of requested instances to detections (strict edition)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from metrics.functional.coco_data import (
    CocoSource,
    Detection,
    DetectionSource,
    GroundTruth,
    ImageSize,
    count_reasons,
    load_detections,
    load_ground_truth,
    unscored_reason,
)
from metrics.functional.regions import IouType, annotation_region, detection_regions, pairwise_iou

__all__ = [
    "NO_DETECTION",
    "NO_MASK",
    "NO_OVERLAP",
    "SCORE_THRESHOLD",
    "TAKEN",
    "InstanceMatch",
    "MatchResult",
    "assign",
    "candidates",
    "detection_shapes",
    "match_instances",
    "match_loaded",
]

SCORE_THRESHOLD = 0.3

NO_DETECTION = "no detection of its class"
NO_OVERLAP = "no detection of its class overlaps it enough"
TAKEN = "its detections are assigned to other instances"
NO_MASK = "no mask"

# The second criterion may never outweigh the first: their ratio is held below this.
_SECONDARY_WEIGHT = 1e-6


@dataclass(frozen=True, slots=True)
class InstanceMatch:
    """What one annotation was assigned.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        category_id: Category id.
        detection: Index of the assigned detection in the list as given, or None.
        score: Confidence of that detection, or None.
        iou: IoU with that detection; 0 for a requested instance without one; None if not scored.
        scored: Whether the instance is requested and could be scored.
        reason: Why it is not scored, or why it has no detection; None if it has one.
    """

    image_id: int
    annotation_id: int
    category_id: int
    detection: int | None
    score: float | None
    iou: float | None
    scored: bool
    reason: str | None

    @property
    def found(self) -> bool:
        """Whether a detection was assigned."""
        return self.detection is not None


@dataclass(frozen=True, slots=True)
class MatchResult:
    """The assignment of all images.

    Attributes:
        per_instance: One entry per annotation, in file order of images and annotations.
        n_scored: Requested instances.
        n_unscored: The others.
        reasons: How many are not scored, by reason.
        unassigned: Indices of detections at or above the score threshold that nothing was assigned to.
    """

    per_instance: tuple[InstanceMatch, ...]
    n_scored: int
    n_unscored: int
    reasons: dict[str, int] = field(default_factory=dict)
    unassigned: tuple[int, ...] = ()


def assign(
    allowed: NDArray[np.bool_], primary: NDArray[np.float64], secondary: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Assign rows to columns one to one: greatest sum of `primary`, then greatest sum of `secondary`.

    Args:
        allowed: bool [N, M], pairs that may be made.
        primary: float64 [N, M], at least 0; differences below 1e-6 count as ties.
        secondary: float64 [N, M], at least 0.

    Returns:
        int64 [N], the column of each row or -1. The same input gives the same output; rows that share no allowed
        column, directly or through others, do not influence each other.
    """
    result = np.full(allowed.shape[0], -1, dtype=np.int64)
    if not allowed.any():
        return result
    # Groups without a common pair are solved apart, so that what happens in one (another category, another
    # corner of the image) cannot change how a tie falls in another.
    graph = np.block(
        [[np.zeros((len(allowed),) * 2), allowed], [allowed.T, np.zeros((allowed.shape[1],) * 2)]]
    )
    _, labels = connected_components(graph, directed=False)
    for label in np.unique(labels[: len(allowed)]):
        rows = np.flatnonzero(labels[: len(allowed)] == label)
        columns = np.flatnonzero(labels[len(allowed) :] == label)
        if not columns.size:
            continue
        group = np.ix_(rows, columns)
        # Divided by the number of rows, the sum over all pairs stays below the primary's resolution.
        scale = _SECONDARY_WEIGHT / (len(rows) * max(1.0, float(secondary[group].max())))
        weights = np.where(allowed[group], primary[group] + scale * secondary[group], 0.0)
        left, right = linear_sum_assignment(weights, maximize=True)
        made = allowed[group][left, right]
        result[rows[left[made]]] = columns[right[made]]
    return result


def candidates(detections: Sequence[Detection], score_threshold: float) -> list[Detection]:
    """Detections at or above the threshold, in an order that does not depend on the list's order."""
    kept = [detection for detection in detections if detection.score >= score_threshold]
    return sorted(kept, key=_canonical_key)


def _canonical_key(detection: Detection) -> tuple[float, int, tuple[float, ...], str]:
    # Equal keys mean interchangeable detections, so results cannot depend on how a detector lists them.
    return (
        -detection.score,
        detection.category_id,
        detection.bbox or (),
        _mask_key(detection.segmentation),
    )


def _mask_key(segmentation: Any) -> str:
    if segmentation is None:
        return ""
    counts = segmentation.get("counts") if isinstance(segmentation, Mapping) else None
    return counts if isinstance(counts, str) else repr(segmentation)


def same_class(
    annotations: Sequence[Mapping[str, Any]], detections: Sequence[Detection]
) -> NDArray[np.bool_]:
    """Bool [N, M], whether annotation and detection are of one category."""
    left = np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64)
    right = np.array([detection.category_id for detection in detections], dtype=np.int64)
    return left[:, None] == right[None, :]


def match_instances(
    gt: CocoSource,
    detections: DetectionSource,
    *,
    iou_type: IouType = "bbox",
    image_ids: Collection[int] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    min_iou: float = 0.0,
    hit_iou: float | None = 0.5,
) -> MatchResult:
    """Assign detections to requested instances, image by image, one to one.

    A pair may be made if the category is the same, the score is at least `score_threshold` and the IoU is
    above 0 and at least `min_iou`. Among all assignments the one with the most pairs at or above `hit_iou`
    is taken, and among those the one with the greatest sum of IoU.

    Args:
        gt: COCO dictionary or path.
        detections: COCO results list or path.
        iou_type: ``"bbox"`` or ``"segm"`` (detections without a mask stand with their box; instances
            without a mask are not scored).
        image_ids: Images to evaluate, or None for all.
        score_threshold: Smallest confidence of a detection that counts.
        min_iou: Smallest IoU of a pair.
        hit_iou: IoU from which a pair is a hit, or None to maximise the sum of IoU alone.

    Returns:
        The assignment; an instance without a detection stays in it with IoU 0.

    Raises:
        ValueError: If `gt` or `detections` are malformed or `iou_type` is unknown.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type: {iou_type!r} is unknown; use 'bbox' or 'segm'")
    truth = load_ground_truth(gt)
    found = load_detections(detections, truth, image_ids)
    return match_loaded(
        truth, found, iou_type=iou_type, score_threshold=score_threshold, min_iou=min_iou, hit_iou=hit_iou
    )


def match_loaded(
    gt: GroundTruth,
    detections: Mapping[int, Sequence[Detection]],
    *,
    iou_type: IouType,
    score_threshold: float,
    min_iou: float,
    hit_iou: float | None,
) -> MatchResult:
    """`match_instances` on data that is already loaded and checked."""
    matches: list[InstanceMatch] = []
    unassigned: list[int] = []
    for image_id, in_image in detections.items():
        kept = candidates(in_image, score_threshold)
        rows = _match_image(gt.images[image_id], gt.annotations[image_id], kept, iou_type, min_iou, hit_iou)
        matches.extend(rows)
        taken = {row.detection for row in rows}
        unassigned.extend(sorted(d.index for d in kept if d.index not in taken))
    skipped = [match.reason or "" for match in matches if not match.scored]
    return MatchResult(
        per_instance=tuple(matches),
        n_scored=len(matches) - len(skipped),
        n_unscored=len(skipped),
        reasons=count_reasons(skipped),
        unassigned=tuple(unassigned),
    )


def _match_image(
    image: ImageSize,
    annotations: Sequence[Mapping[str, Any]],
    kept: Sequence[Detection],
    iou_type: IouType,
    min_iou: float,
    hit_iou: float | None,
) -> list[InstanceMatch]:
    reasons = [unscored_reason(annotation) for annotation in annotations]
    shapes: list[Any] = []
    for position, annotation in enumerate(annotations):
        if reasons[position] is None:
            shape = _annotation_shape(annotation, image, iou_type)
            if shape is None:
                reasons[position] = NO_MASK
            else:
                shapes.append(shape)
    scored = [a for a, reason in zip(annotations, reasons, strict=True) if reason is None]
    ious = pairwise_iou(shapes, detection_shapes(kept, image, iou_type) if shapes else [])
    if not shapes:
        ious = np.zeros((0, len(kept)))
    classes = same_class(scored, kept)
    allowed = classes & (ious > 0) & (ious >= min_iou)
    primary = ious if hit_iou is None else (ious >= hit_iou).astype(np.float64)
    chosen = iter(enumerate(assign(allowed, primary, ious)))
    rows: list[InstanceMatch] = []
    for annotation, reason in zip(annotations, reasons, strict=True):
        detection, score, iou = None, None, None
        if reason is None:
            row, column = next(chosen)
            iou = 0.0
            if column >= 0:
                detection, score, iou = kept[column].index, kept[column].score, float(ious[row, column])
                why = None
            elif not classes[row].any():
                why = NO_DETECTION
            else:
                why = TAKEN if allowed[row].any() else NO_OVERLAP
        else:
            why = reason
        rows.append(
            InstanceMatch(
                image_id=image.id,
                annotation_id=annotation["id"],
                category_id=annotation["category_id"],
                detection=detection,
                score=score,
                iou=iou,
                scored=reason is None,
                reason=why,
            )
        )
    return rows


def _annotation_shape(annotation: Mapping[str, Any], image: ImageSize, iou_type: IouType) -> Any | None:
    if iou_type == "segm":
        return annotation_region(annotation, image)
    box = annotation.get("bbox")
    if box is None:
        raise ValueError(f"annotation {annotation['id']}: field 'bbox' is missing; add it")
    return box


def detection_shapes(kept: Sequence[Detection], image: ImageSize, iou_type: IouType) -> list[Any]:
    """Boxes or masks of detections, as `pairwise_iou` takes them.

    Raises:
        ValueError: If one has no box, or its mask is malformed.
    """
    if iou_type == "segm":
        return detection_regions(kept, image)
    for detection in kept:
        if detection.bbox is None:
            raise ValueError(f"detections: entry {detection.index}: field 'bbox' is missing; add it")
    return [detection.bbox for detection in kept]
