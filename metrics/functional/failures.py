"""What went wrong with each requested instance.

Every requested instance gets exactly one kind. Detections below the score threshold do not count. The masks are
compared if everything has one, else the boxes. In this order:

1. *Answered* instances: a detection of the category with an IoU of at least `located_iou`, one to one (the most
   pairs, then the largest sum of IoU).

   - leaked attribute: the attribute that is seen was asked of another instance of the image;
   - wrong attribute: another attribute than the asked one is seen;
   - duplicated: a further object of the category, which answers nobody, lies on the instance: IoU of at least
     `near_iou`, larger than with any other instance of the category, and an IoU below `located_iou` with the answer,
     so that it is not the same object seen twice;
   - correct: nothing of that.

2. The others:

   - merged: a detection of the category overlaps the instance and another one of the category (IoU of at least
     `near_iou` with both) and fits the two together better than either alone;
   - wrong class: a detection of another category, with an IoU of at least `located_iou`, is left for it;
   - misplaced: a detection of the category, with an IoU of at least `near_iou`, is left for it;
   - missing: nothing of that.

"Left" means that no instance was given the detection before; wrong class and misplaced are again assigned one to
one. The thresholds are those of TIDE (Bolya et al. 2020: foreground 0.5, background 0.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from metrics.functional.attribute_binding import AttributeInstance
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
from metrics.functional.matching import SCORE_THRESHOLD, assign, candidates, detection_shapes, same_class
from metrics.functional.regions import IouType, annotation_regions, pairwise_iou, union

__all__ = ["FailureInstance", "FailureKind", "FailureResult", "classify_failures"]


class FailureKind(StrEnum):
    """What became of a requested instance."""

    CORRECT = "correct"
    MISSING = "missing"
    MISPLACED = "misplaced"
    WRONG_CLASS = "wrong class"
    DUPLICATED = "duplicated"
    MERGED = "merged"
    WRONG_ATTRIBUTE = "wrong attribute"
    LEAKED_ATTRIBUTE = "leaked attribute"


@dataclass(frozen=True, slots=True)
class FailureInstance:
    """What became of one annotation.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        category_id: Category id.
        kind: The kind, or None if the annotation is not requested.
        detection: Index of the detection that answers it, or shows the failure, in the list as given; or None.
        others: Indices of its duplicates, in the list as given.
        merged_with: Annotation ids of the neighbours it is merged with.
        reason: Why it is not scored, or None.
    """

    image_id: int
    annotation_id: int
    category_id: int
    kind: FailureKind | None
    detection: int | None = None
    others: tuple[int, ...] = ()
    merged_with: tuple[int, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FailureResult:
    """The failures of a set of images.

    Attributes:
        per_instance: One entry per annotation, in file order of images and annotations.
        counts: Instances of every kind; kinds that do not occur have 0.
        n_scored: Requested instances.
        n_unscored: The others.
        n_extra: Detections at or above the threshold that no kind speaks of and that lie in no ignore region.
        reasons: How many are not scored, by reason.
        iou_type: What was compared, ``"bbox"`` or ``"segm"``.
    """

    per_instance: tuple[FailureInstance, ...]
    counts: dict[FailureKind, int]
    n_scored: int
    n_unscored: int
    n_extra: int
    reasons: dict[str, int] = field(default_factory=dict)
    iou_type: IouType = "bbox"


def classify_failures(
    gt: CocoSource,
    detections: DetectionSource,
    *,
    attributes: Sequence[AttributeInstance] = (),
    located_by: Mapping[int, int | None] | None = None,
    iou_type: IouType | None = None,
    image_ids: Collection[int] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    located_iou: float = 0.5,
    near_iou: float = 0.1,
) -> FailureResult:
    """Gives every requested instance its kind, see the module's text.

    Args:
        gt: COCO dictionary or path.
        detections: COCO results list or path.
        attributes: What was seen of the attributes, see `metrics.functional.attribute_binding`.
        located_by: For instances whose size is free (points, scribbles): by annotation id the index of the
            detection that answers it, or None. It takes the place of `located_iou` for them.
        iou_type: ``"bbox"``, ``"segm"``, or None for masks where everything has one.
        image_ids: Images to evaluate, or None for all.
        score_threshold: Smallest confidence of a detection that counts.
        located_iou: IoU from which an object is where it was asked for.
        near_iou: IoU from which an object is near the place.

    Returns:
        The kinds.

    Raises:
        ValueError: If the input is malformed or the thresholds are out of order.
    """
    if not 0 < near_iou <= located_iou <= 1:
        raise ValueError(f"near_iou: {near_iou} must be above 0 and at most located_iou ({located_iou})")
    truth = load_ground_truth(gt)
    loaded = load_detections(detections, truth, image_ids)
    compared = _iou_type(truth, loaded) if iou_type is None else iou_type
    seen = {one.annotation_id: one for one in attributes}
    rows: list[FailureInstance] = []
    n_extra = 0
    for image_id, in_image in loaded.items():
        scene = _Scene(
            truth.images[image_id],
            truth.annotations[image_id],
            candidates(in_image, score_threshold),
            compared,
            located_iou,
            near_iou,
        )
        scene.answer(located_by)
        scene.explain()
        rows.extend(scene.rows(seen))
        n_extra += scene.count_extra()
    kinds = Counter(row.kind for row in rows if row.kind is not None)
    skipped = [row.reason or "" for row in rows if row.kind is None]
    return FailureResult(
        per_instance=tuple(rows),
        counts={kind: kinds[kind] for kind in FailureKind},
        n_scored=len(rows) - len(skipped),
        n_unscored=len(skipped),
        n_extra=n_extra,
        reasons=count_reasons(skipped),
        iou_type=compared,
    )


def _iou_type(truth: GroundTruth, loaded: Mapping[int, Sequence[Detection]]) -> IouType:
    """Masks where every requested instance and every detection has one."""
    asked = all(
        one.get("segmentation")
        for image_id in loaded
        for one in truth.annotations[image_id]
        if unscored_reason(one) is None
    )
    found = all(one.segmentation is not None for in_image in loaded.values() for one in in_image)
    return "segm" if asked and found else "bbox"


class _Scene:
    """One image: requested instances, detections, and what is known of them."""

    def __init__(
        self,
        image: ImageSize,
        annotations: Sequence[Mapping[str, Any]],
        kept: Sequence[Detection],
        iou_type: IouType,
        located_iou: float,
        near_iou: float,
    ) -> None:
        self.image, self.annotations, self.kept = image, annotations, kept
        self.located_iou, self.near_iou = located_iou, near_iou
        self.requested = [one for one in annotations if unscored_reason(one) is None]
        self.shapes = _annotation_shapes(self.requested, image, iou_type)
        self.found = detection_shapes(kept, image, iou_type)
        self.ious = pairwise_iou(self.shapes, self.found)
        self.same = same_class(self.requested, kept)
        count = len(self.requested)
        self.kinds = [FailureKind.MISSING] * count
        self.columns = np.full(count, -1, dtype=np.int64)
        self.merged_with: list[tuple[int, ...]] = [()] * count
        self.duplicates: list[list[int]] = [[] for _ in range(count)]
        self.free = np.ones(len(kept), dtype=bool)
        self.iou_type = iou_type

    def answer(self, located_by: Mapping[int, int | None] | None) -> None:
        """Gives instances their answers, then the further objects that lie on them."""
        given = located_by or {}
        places = {one.index: column for column, one in enumerate(self.kept)}
        free_size = np.array([one["id"] in given for one in self.requested], dtype=bool)
        for row in np.flatnonzero(free_size).tolist():
            index = given[self.requested[row]["id"]]
            self.columns[row] = -1 if index is None else places.get(index, -1)
        used = self.columns[self.columns >= 0]
        self.free[used] = False
        allowed = self.same & (self.ious >= self.located_iou) & ~free_size[:, None] & self.free
        found = assign(allowed, allowed.astype(np.float64), self.ious)
        self.columns = np.where(free_size, self.columns, found)
        answered = np.flatnonzero(self.columns >= 0)
        self.free[self.columns[answered]] = False
        near = np.where(self.same & (self.ious >= self.near_iou), self.ious, 0.0)
        for column in np.flatnonzero(self.free & near.any(axis=0)).tolist():
            row = int(np.argmax(near[:, column]))
            answer = int(self.columns[row])
            if answer < 0:
                continue
            if pairwise_iou([self.found[column]], [self.found[answer]])[0, 0] < self.located_iou:
                self.duplicates[row].append(column)
        for row in answered.tolist():
            self.kinds[row] = FailureKind.DUPLICATED if self.duplicates[row] else FailureKind.CORRECT
            self.free[self.duplicates[row]] = False

    def explain(self) -> None:
        """Finds out what became of the instances without an answer."""
        open_rows = [row for row in range(len(self.requested)) if self.columns[row] < 0]
        for row in open_rows:
            self._merge(row)
        for kind, allowed in (
            (FailureKind.WRONG_CLASS, ~self.same & (self.ious >= self.located_iou)),
            (FailureKind.MISPLACED, self.same & (self.ious >= self.near_iou)),
        ):
            left = np.array(
                [self.kinds[row] is FailureKind.MISSING for row in range(len(self.requested))], dtype=bool
            )
            possible = allowed & left[:, None] & self.free
            for row, column in enumerate(assign(possible, possible.astype(np.float64), self.ious).tolist()):
                if column >= 0:
                    self.kinds[row], self.columns[row] = kind, column
                    self.free[column] = False

    def _merge(self, row: int) -> None:
        """Whether a detection shows this instance and a neighbour as one object."""
        near = self.same & (self.ious >= self.near_iou)
        for column in np.flatnonzero(near[row]).tolist():
            partners = [
                other
                for other in np.flatnonzero(near[:, column]).tolist()
                if other != row and self._fits_both(row, other, column)
            ]
            if partners:
                self.kinds[row], self.columns[row] = FailureKind.MERGED, column
                self.merged_with[row] = tuple(self.requested[other]["id"] for other in partners)
                self.free[column] = False
                return

    def _fits_both(self, row: int, other: int, column: int) -> bool:
        both = union(self.shapes[row], self.shapes[other])
        together = pairwise_iou([both], [self.found[column]])[0, 0]
        return bool(together > max(self.ious[row, column], self.ious[other, column]))

    def rows(self, seen: Mapping[int, AttributeInstance]) -> list[FailureInstance]:
        """One entry per annotation."""
        requested = iter(range(len(self.requested)))
        rows = []
        for annotation in self.annotations:
            reason = unscored_reason(annotation)
            identity = (self.image.id, annotation["id"], annotation["category_id"])
            if reason is not None:
                rows.append(FailureInstance(*identity, kind=None, reason=reason))
                continue
            row = next(requested)
            column = int(self.columns[row])
            rows.append(
                FailureInstance(
                    *identity,
                    kind=self._with_attribute(self.kinds[row], seen.get(annotation["id"])),
                    detection=None if column < 0 else self.kept[column].index,
                    others=tuple(self.kept[index].index for index in self.duplicates[row]),
                    merged_with=self.merged_with[row],
                )
            )
        return rows

    @staticmethod
    def _with_attribute(kind: FailureKind, seen: AttributeInstance | None) -> FailureKind:
        if (
            kind not in (FailureKind.CORRECT, FailureKind.DUPLICATED)
            or seen is None
            or seen.predicted is None
        ):
            return kind
        if seen.correct is not False:
            return kind
        return FailureKind.LEAKED_ATTRIBUTE if seen.leaked_from else FailureKind.WRONG_ATTRIBUTE

    def count_extra(self) -> int:
        """Detections that nobody asked for, outside ignore regions."""
        columns = np.flatnonzero(self.free).tolist()
        ignored = [one for one in self.annotations if unscored_reason(one) is not None]
        if not columns or not ignored:
            return len(columns)
        regions = _annotation_shapes(ignored, self.image, self.iou_type)
        extra = [self.found[column] for column in columns]
        covered = pairwise_iou(extra, regions, crowd=True)
        return int((covered.max(axis=1) < self.located_iou).sum())


def _annotation_shapes(
    annotations: Sequence[Mapping[str, Any]], image: ImageSize, iou_type: IouType
) -> list[Any]:
    if iou_type == "segm":
        regions = annotation_regions(annotations, image)
        for one, region in zip(annotations, regions, strict=True):
            if region is None:
                raise ValueError(f"annotation {one['id']}: has no segmentation; add one or compare boxes")
        return list(regions)
    for one in annotations:
        if one.get("bbox") is None:
            raise ValueError(f"annotation {one['id']}: field 'bbox' is missing; add it")
    return [one["bbox"] for one in annotations]
