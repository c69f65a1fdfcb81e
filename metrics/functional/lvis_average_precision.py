"""LVIS average precision: federated annotations, rare, common and frequent categories.

LVIS looks for a category only in some images. A detection counts there alone: where the category is annotated, or
listed as absent (``neg_category_ids``). Where it is annotated but not exhaustively
(``not_exhaustive_category_ids``), an unmatched detection is neither right nor wrong.

Source: the behaviour of the reference implementation of the LVIS API (``lvis`` 0.5.3, ``LVISEval``), which the tests
compare with; Gupta et al. 2019, section 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.functional.average_precision import prepare_pair
from metrics.functional.coco_data import CocoSource, DetectionSource, load_ground_truth, read_ground_truth
from metrics.functional.detection_table import DetectionTable, detection_table
from metrics.functional.match_table import ImageMatches, MatchTable, gather_matches, pack_bits
from metrics.functional.regions import IouType, pairwise_iou

__all__ = ["LVIS_STATS", "LvisResult", "evaluate_lvis_average_precision", "lvis_average_precision"]

LVIS_STATS = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "APr",
    "APc",
    "APf",
    "AR@300",
    "ARs@300",
    "ARm@300",
    "ARl@300",
)
"""Names of the numbers, those of the LVIS API."""

MAX_DETECTIONS = 300
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
_FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True)
class LvisResult:
    """LVIS average precision of a set of images.

    Attributes:
        values: The numbers by name (`LVIS_STATS`); None where there is nothing to score.
        per_category: AP by category name; None where the category is not annotated.
        n_scored: Annotations that are scored.
        n_scored_by_frequency: The same for rare (r), common (c) and frequent (f) categories.
        n_unscored: Annotations that are ignored, or left out because they have no area.
        n_detections: Detections that count somewhere.
        n_unjudged: Detections of categories that nobody looked for in their image, left out.
        matches: Who matched whom, image by image.
    """

    values: dict[str, float | None]
    per_category: dict[str, float | None]
    n_scored: int
    n_scored_by_frequency: dict[str, int]
    n_unscored: int
    n_detections: int
    n_unjudged: int
    matches: MatchTable = field(repr=False, compare=False)


def lvis_average_precision(
    gt: CocoSource,
    detections: DetectionSource,
    iou_type: IouType = "bbox",
    image_ids: Collection[int] | None = None,
) -> dict[str, float]:
    """The LVIS API's numbers by name (`LVIS_STATS`); -1 where there is nothing to score.

    Args:
        gt: LVIS dictionary or path: images with ``neg_category_ids`` and ``not_exhaustive_category_ids``,
            categories with ``frequency`` (r, c or f).
        detections: COCO results list or path; the 300 best of each image count.
        iou_type: ``"bbox"`` or ``"segm"``.
        image_ids: Images to evaluate, or None for all.

    Raises:
        ValueError: If the input is malformed, a federated field is missing, or `iou_type` is unknown.
    """
    values = evaluate_lvis_average_precision(gt, detections, iou_type, image_ids).values
    return {name: -1.0 if value is None else value for name, value in values.items()}


def evaluate_lvis_average_precision(
    gt: CocoSource,
    detections: DetectionSource,
    iou_type: IouType = "bbox",
    image_ids: Collection[int] | None = None,
) -> LvisResult:
    """The same with None, counts and categories; arguments and errors as `lvis_average_precision`."""
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type: {iou_type!r} is unknown; use 'bbox' or 'segm'")
    content, name = read_ground_truth(gt)
    truth = load_ground_truth(content)
    table = detection_table(detections, truth, image_ids)
    absent, partial, frequency = _federated(content, name, table.images)
    pair = prepare_pair(truth, _best_of_each_image(table), iou_type)
    annotated: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    annotations = [one for one in pair.ground_truth["annotations"] if _has_area(one["area"])]
    for annotation in annotations:
        annotated[annotation["image_id"], annotation["category_id"]].append(annotation)
    # The LVIS API leaves out what has no area, after the 300 best are chosen.
    found = pair.table.select(_has_area(_detection_areas(pair.table)))
    keys = zip(found.image_ids.tolist(), found.category_ids.tolist(), strict=True)
    judged = np.array([key in annotated or key[1] in absent[key[0]] for key in keys], dtype=bool)
    counted = found.select(judged)
    categories = sorted(truth.categories)
    accumulator = _accumulate(counted, annotated, partial, categories, iou_type)
    precision, recall = accumulator.curves()
    ignored = sum(one["iscrowd"] for one in annotations)
    return LvisResult(
        values=_summary(precision, recall, [frequency[one] for one in categories]),
        per_category={
            truth.categories[one]: _mean(precision[:, :, column, 0]) for column, one in enumerate(categories)
        },
        n_scored=len(annotations) - ignored,
        n_scored_by_frequency={
            letter: sum(frequency[one["category_id"]] == letter and not one["iscrowd"] for one in annotations)
            for letter in _FREQUENCIES
        },
        n_unscored=len(pair.ground_truth["annotations"]) - len(annotations) + ignored,
        n_detections=len(counted),
        n_unjudged=int((~judged).sum()),
        matches=gather_matches(
            accumulator.cells(), table.images, categories, [frequency[one] for one in categories]
        ),
    )


def _federated(
    content: Mapping[str, Any], name: str, images: Sequence[int]
) -> tuple[dict[int, frozenset[int]], dict[int, frozenset[int]], dict[int, str]]:
    """Absent and partly annotated categories by image, and the frequency of each category."""
    wanted = set(images)
    absent: dict[int, frozenset[int]] = {}
    partial: dict[int, frozenset[int]] = {}
    for image in content["images"]:
        if image["id"] not in wanted:
            continue
        for key, table in (("neg_category_ids", absent), ("not_exhaustive_category_ids", partial)):
            if not isinstance(image.get(key), list):
                raise ValueError(
                    f"{name}: image {image['id']}: field '{key}' is missing; give the LVIS annotations"
                )
            table[image["id"]] = frozenset(image[key])
    frequency = {}
    for category in content["categories"]:
        if category.get("frequency") not in _FREQUENCIES:
            raise ValueError(
                f"{name}: category {category['id']}: frequency {category.get('frequency')!r} is not r, c or f; "
                "give the LVIS annotations"
            )
        frequency[category["id"]] = category["frequency"]
    return absent, partial, frequency


def _has_area(area: Any) -> Any:
    return (area > 0) & (area < np.inf)


def _best_of_each_image(table: DetectionTable) -> DetectionTable:
    """At most 300 detections per image, the best; earlier ones win ties."""
    order = np.argsort(-table.scores, kind="mergesort")
    order = order[np.argsort(table.image_ids[order], kind="mergesort")]
    owners = table.image_ids[order]
    starts = np.searchsorted(owners, owners)
    kept = np.zeros(len(table), dtype=bool)
    kept[order[np.arange(len(table)) - starts < MAX_DETECTIONS]] = True
    # The order among detections of one image decides ties: by score, as the reference sorts full images.
    full = np.isin(table.image_ids, owners[np.arange(len(table)) - starts >= MAX_DETECTIONS])
    if not full.any():
        return table
    moved = table.take(np.concatenate([np.flatnonzero(kept & ~full), order[kept[order] & full[order]]]))
    return replace(moved, images=table.images)


def _groups(
    table: DetectionTable, annotated: Mapping[tuple[int, int], Any]
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Rows of the detections by image and category; pairs without detections have none. Images in file order."""
    groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(table.image_ids.tolist(), table.category_ids.tolist(), strict=True)):
        groups[key].append(row)
    position = {image_id: number for number, image_id in enumerate(sorted(table.images))}
    keys = sorted({*groups, *annotated}, key=lambda key: (position[key[0]], key[1]))
    return {key: np.array(groups.get(key, []), dtype=np.int64) for key in keys}


def _shapes(table: DetectionTable, iou_type: IouType) -> Sequence[Any]:
    if iou_type == "segm" and table.segmentations is not None:
        return table.segmentations
    boxes: list[Any] = _boxes(table).tolist()
    return boxes


def _boxes(table: DetectionTable) -> NDArray[np.float64]:
    """Boxes [N, 4]; those of the masks where the list gives none."""
    if len(table) == 0 or not np.isnan(table.boxes_xywh).any() or table.segmentations is None:
        return table.boxes_xywh
    from pycocotools import mask as coco_mask

    boxes: NDArray[np.float64] = coco_mask.toBbox(list(table.segmentations))
    return boxes


def _detection_areas(table: DetectionTable) -> NDArray[np.float64]:
    """Areas as the LVIS API takes them: of the box, of the mask only where the list gives no boxes."""
    if len(table) == 0 or not np.isnan(table.boxes_xywh).any() or table.segmentations is None:
        return table.boxes_xywh[:, 2] * table.boxes_xywh[:, 3]
    from pycocotools import mask as coco_mask

    areas: NDArray[np.float64] = coco_mask.area(list(table.segmentations)).astype(np.float64)
    return areas


@dataclass(frozen=True)
class _Matches:
    """One image and category: bool [areas, thresholds, D], and bool [areas, G] for the annotations."""

    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_ignored: NDArray[np.bool_]


def _match(
    annotations: Sequence[Mapping[str, Any]],
    shapes: Sequence[Any],
    areas: NDArray[np.float64],
    *,
    exhaustive: bool,
    iou_type: IouType,
) -> _Matches:
    """Greedy matching for all thresholds and areas at once; detections are sorted by score."""
    field = "segmentation" if iou_type == "segm" else "bbox"
    ious = pairwise_iou(shapes, [one[field] for one in annotations])
    sizes = np.array([one["area"] for one in annotations], dtype=np.float64)
    flags = np.array([one["iscrowd"] for one in annotations], dtype=bool)
    # The LVIS API takes the id 0 for "no match".
    named = np.array([one["id"] != 0 for one in annotations], dtype=bool)
    outside = (sizes < _AREAS[:, :1]) | (sizes > _AREAS[:, 1:])
    truth_ignored = flags | outside
    count = len(shapes)
    matched = np.zeros((len(_AREAS), len(_THRESHOLDS), count), dtype=bool)
    ignored = np.zeros_like(matched)
    free = np.ones((len(_AREAS), len(_THRESHOLDS), len(annotations)), dtype=bool)
    enough = np.minimum(_THRESHOLDS, 1 - 1e-10)[:, None]
    for row in range(count if len(annotations) else 0):
        possible = free & (ious[row] >= enough)
        if not possible.any():
            continue
        # Annotations that count come before ignored ones; of equal overlaps the last one is taken.
        counting = possible & ~truth_ignored[:, None, :]
        preferred = np.where(counting.any(axis=-1, keepdims=True), counting, possible)
        value = np.where(preferred, ious[row], -1.0)
        best = value.shape[-1] - 1 - np.argmax(value[..., ::-1], axis=-1)
        hit = possible.any(axis=-1)
        matched[..., row] = hit & named[best]
        ignored[..., row] = hit & np.take_along_axis(truth_ignored, best, axis=1)
        where = np.nonzero(hit)
        free[(*where, best[where])] = False
    unjudged = (areas < _AREAS[:, :1]) | (areas > _AREAS[:, 1:]) | (not exhaustive)
    ignored |= ~matched & unjudged[:, None, :]
    return _Matches(matched, ignored, truth_ignored)


def _accumulate(
    counted: DetectionTable,
    annotated: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
    partial: Mapping[int, Collection[int]],
    categories: Sequence[int],
    iou_type: IouType,
) -> _Accumulator:
    """Matches image by image and category by category."""
    accumulator = _Accumulator(categories)
    shapes, areas = _shapes(counted, iou_type), _detection_areas(counted)
    for key, rows in _groups(counted, annotated).items():
        best_first = rows[np.argsort(-counted.scores[rows], kind="mergesort")]
        matches = _match(
            annotated.get(key, []),
            [shapes[row] for row in best_first.tolist()],
            areas[best_first],
            exhaustive=key[1] not in partial[key[0]],
            iou_type=iou_type,
        )
        accumulator.add(*key, matches, counted.scores[best_first])
    return accumulator


class _Accumulator:
    """Gathers the matches of each category, and makes curves of them."""

    def __init__(self, categories: Sequence[int]) -> None:
        self._categories = categories
        self._parts: defaultdict[int, list[tuple[int, _Matches, NDArray[np.float64]]]] = defaultdict(list)

    def add(self, image: int, category: int, matches: _Matches, scores: NDArray[np.float64]) -> None:
        self._parts[category].append((image, matches, scores))

    def cells(self) -> Iterator[ImageMatches]:
        """What was added, image by image."""
        for category, parts in self._parts.items():
            for image, one, scores in parts:
                counts = (~one.truth_ignored).sum(axis=-1).tolist()
                yield ImageMatches(
                    image, category, scores, pack_bits(one.matched), pack_bits(one.ignored), counts
                )

    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision [thresholds, recalls, categories, areas] and recall [thresholds, categories, areas]; -1 empty."""
        shape = (len(_THRESHOLDS), len(self._categories), len(_AREAS))
        recall = np.full(shape, -1.0)
        precision = np.full((shape[0], len(_RECALLS), *shape[1:]), -1.0)
        for column, category in enumerate(self._categories):
            parts = self._parts.get(category, [])
            if not parts:
                continue
            scores = np.concatenate([values for *_, values in parts])
            order = np.argsort(-scores, kind="mergesort")
            matched = np.concatenate([one.matched for _, one, _ in parts], axis=-1)[..., order]
            ignored = np.concatenate([one.ignored for _, one, _ in parts], axis=-1)[..., order]
            counts = sum((~one.truth_ignored).sum(axis=-1) for _, one, _ in parts)
            for area in np.flatnonzero(counts):
                right = np.cumsum(matched[area] & ~ignored[area], axis=-1, dtype=np.float64)
                wrong = np.cumsum(~matched[area] & ~ignored[area], axis=-1, dtype=np.float64)
                for level, (tp, fp) in enumerate(zip(right, wrong, strict=True)):
                    curve, last = _curve(tp, fp, int(counts[area]))
                    precision[level, :, column, area] = curve
                    recall[level, column, area] = last
        return precision, recall


def _curve(tp: NDArray[np.float64], fp: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], float]:
    """Interpolated precision at the recall points, and the largest recall."""
    if not tp.size:
        return np.zeros(len(_RECALLS)), 0.0
    recall = tp / count
    precision = tp / (fp + tp + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    curve = np.where(places < len(precision), precision[np.minimum(places, len(precision) - 1)], 0.0)
    return curve, float(recall[-1])


def _mean(values: NDArray[np.float64]) -> float | None:
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _summary(
    precision: NDArray[np.float64], recall: NDArray[np.float64], frequency: Sequence[str]
) -> dict[str, float | None]:
    values = {"AP": _mean(precision[..., 0])}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        values[name] = _mean(precision[np.isclose(_THRESHOLDS, threshold), ..., 0])
    for area, letter in enumerate("sml", start=1):
        values[f"AP{letter}"] = _mean(precision[..., area])
    for letter in _FREQUENCIES:
        chosen = [column for column, one in enumerate(frequency) if one == letter]
        values[f"AP{letter}"] = _mean(precision[:, :, chosen, 0])
    values["AR@300"] = _mean(recall[..., 0])
    for area, letter in enumerate("sml", start=1):
        values[f"AR{letter}@300"] = _mean(recall[..., area])
    return values
