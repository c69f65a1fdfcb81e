"""Points in mask (PiM): do the objects lie where a point or a scribble asked for them?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from metrics.functional.coco_data import (
    CocoSource,
    Detection,
    DetectionSource,
    ImageSize,
    count_reasons,
    load_detections,
    load_ground_truth,
    unscored_reason,
)
from metrics.functional.matching import (
    NO_DETECTION,
    SCORE_THRESHOLD,
    TAKEN,
    assign,
    candidates,
    same_class,
)
from metrics.functional.points_in_mask_paper import NumpyRandom, paper_points_in_mask
from metrics.functional.regions import annotation_region, detection_regions, pixels_inside

__all__ = ["NO_POINTS", "OUTSIDE", "Edition", "PointsInMaskInstance", "PointsInMaskResult", "points_in_mask"]

Edition: TypeAlias = Literal["strict", "paper"]
PointKind: TypeAlias = Literal["point", "scribble"]

NO_POINTS = "no points given"
OUTSIDE = "every point lies outside the detections of its class"


@dataclass(frozen=True, slots=True)
class PointsInMaskInstance:
    """What one annotation scored.

    Attributes:
        image_id: Image id.
        annotation_id: Annotation id.
        category_id: Category id.
        value: Share of its points inside the assigned detection (0 or 1 for one point); None if not scored.
        detection: Index of the assigned detection in the list as given, or None.
        score: Confidence of that detection, or None.
        reason: Why it is not scored, or why it has no detection; None if it has one.
    """

    image_id: int
    annotation_id: int
    category_id: int
    value: float | None
    detection: int | None
    score: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class PointsInMaskResult:
    """Points in mask of a set of images.

    Attributes:
        value: Strict: mean over requested instances. Paper: mean over images of the image means. None if
            nothing was scored.
        per_image: Mean over the scored instances of each image that has any, in file order.
        per_instance: One entry per annotation.
        n_scored: Annotations that were scored.
        n_unscored: Annotations that were not.
        n_missing: Strict: scored instances without an assigned detection.
        reasons: How many are not scored, by reason.
        kind: ``"point"`` or ``"scribble"``.
        edition: ``"strict"`` or ``"paper"``.
    """

    value: float | None
    per_image: dict[int, float]
    per_instance: tuple[PointsInMaskInstance, ...]
    n_scored: int
    n_unscored: int
    n_missing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    kind: PointKind = "point"
    edition: Edition = "strict"


def points_in_mask(
    gt: CocoSource,
    detections: DetectionSource,
    kind: PointKind = "point",
    edition: Edition = "strict",
    rng: NumpyRandom = None,
    given: Mapping[int, Sequence[Any]] | None = None,
    *,
    image_ids: Collection[int] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
) -> PointsInMaskResult:
    """Share of the requested points that lie inside the object that was asked for.

    Strict edition. A requested instance may be assigned a detection of its category with a score of at least
    `score_threshold`, one to one within the image. ``point``: the instance is hit (1) if its point lies
    inside its detection; the assignment with the most hits, then the greatest sum of scores, is taken.
    ``scribble``: the value is the share of its scribble points inside its detection; the assignment with the
    greatest sum of shares, then of scores, is taken. No detection is a miss (0), and every requested instance
    weighs the same. A point (x, y) in [0, 1] falls into the pixel (floor(x * width), floor(y * height)).
    Detections without a mask stand with their filled box.

    Paper edition. What the published evaluation script computes, bug for bug; see
    `metrics.functional.points_in_mask_paper`.

    Args:
        gt: COCO dictionary or path.
        detections: COCO results list or path.
        kind: ``"point"`` or ``"scribble"``.
        edition: ``"strict"`` or ``"paper"``.
        rng: Paper scribbles only: a NumPy random state or generator, or a seed of the former; None draws
            from NumPy's global state as the published script does.
        given: Strict only: by annotation id, the point (x, y) or the list of scribble points that the
            generator was shown, in [0, 1] of the canvas. For ``point``, None stands for the box centre, or
            the mask pixel nearest to it where the centre is outside the mask.
        image_ids: Images to evaluate, or None for all.
        score_threshold: Strict only: smallest confidence of a detection that counts.

    Returns:
        The values; annotations that are not requested or have no points are listed as not scored.

    Raises:
        ValueError: If the input is malformed, a point is outside [0, 1], strict scribbles are asked for
            without `given`, or the paper edition is asked for with it.
    """
    if kind not in ("point", "scribble"):
        raise ValueError(f"kind: {kind!r} is unknown; use 'point' or 'scribble'")
    if edition not in ("strict", "paper"):
        raise ValueError(f"edition: {edition!r} is unknown; use 'strict' or 'paper'")
    truth = load_ground_truth(gt)
    loaded = load_detections(detections, truth, image_ids)
    rows: list[PointsInMaskInstance] = []
    if edition == "paper":
        if given is not None:
            raise ValueError("given: the paper edition derives its points from the masks; leave it out")
        rows = [PointsInMaskInstance(*row) for row in paper_points_in_mask(truth, loaded, kind, rng)]
    else:
        if given is None and kind == "scribble":
            raise ValueError(
                "given: strict scribbles are the points the generator was shown; pass them by id"
            )
        for image_id, in_image in loaded.items():
            kept = candidates(in_image, score_threshold)
            rows.extend(_score_image(truth.images[image_id], truth.annotations[image_id], kept, kind, given))
    return _summarise(rows, kind, edition)


def _summarise(rows: Sequence[PointsInMaskInstance], kind: PointKind, edition: Edition) -> PointsInMaskResult:
    grouped: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            grouped[row.image_id].append(row.value)
    per_image = {image_id: float(np.mean(values)) for image_id, values in grouped.items()}
    values = [row.value for row in rows if row.value is not None]
    averaged = values if edition == "strict" else list(per_image.values())
    skipped = [row.reason or "" for row in rows if row.value is None]
    return PointsInMaskResult(
        value=float(np.mean(averaged)) if averaged else None,
        per_image=per_image,
        per_instance=tuple(rows),
        n_scored=len(values),
        n_unscored=len(skipped),
        n_missing=sum(row.value is not None and row.detection is None for row in rows),
        reasons=count_reasons(skipped),
        kind=kind,
        edition=edition,
    )


def _score_image(
    image: ImageSize,
    annotations: Sequence[Mapping[str, Any]],
    kept: Sequence[Detection],
    kind: PointKind,
    given: Mapping[int, Sequence[Any]] | None,
) -> Iterator[PointsInMaskInstance]:
    reasons = [unscored_reason(annotation) for annotation in annotations]
    pixels: list[NDArray[np.int64]] = []
    for position, annotation in enumerate(annotations):
        if reasons[position] is None:
            points = _pixels_of(annotation, image, kind, given)
            if points is None:
                reasons[position] = NO_POINTS
            else:
                pixels.append(points)
    scored = [a for a, reason in zip(annotations, reasons, strict=True) if reason is None]
    classes = same_class(scored, kept)
    shares = _shares(pixels, kept, classes, image)
    scores = np.broadcast_to(np.array([max(d.score, 0.0) for d in kept]), shares.shape)
    chosen = iter(enumerate(assign(shares > 0, shares, scores)))
    for annotation, reason in zip(annotations, reasons, strict=True):
        value, detection, score, why = None, None, None, reason
        if reason is None:
            row, column = next(chosen)
            value = 0.0
            if column >= 0:
                value = float(shares[row, column])
                detection, score = kept[column].index, kept[column].score
            elif not classes[row].any():
                why = NO_DETECTION
            else:
                why = TAKEN if shares[row].any() else OUTSIDE
        yield PointsInMaskInstance(
            image.id, annotation["id"], annotation["category_id"], value, detection, score, why
        )


def _shares(
    pixels: Sequence[NDArray[np.int64]],
    kept: Sequence[Detection],
    classes: NDArray[np.bool_],
    image: ImageSize,
) -> NDArray[np.float64]:
    """float64 [N, M], share of each instance's points inside each detection of its class."""
    shares = np.zeros((len(pixels), len(kept)))
    useful = np.flatnonzero(classes.any(axis=0)).tolist()
    if not useful:
        return shares
    points = np.concatenate(pixels)
    regions = detection_regions([kept[column] for column in useful], image)
    inside = pixels_inside(regions, points[:, 0], points[:, 1])
    lengths = np.array([len(part) for part in pixels])
    starts = np.cumsum(lengths) - lengths
    shares[:, useful] = np.add.reduceat(inside.astype(np.int64), starts) / lengths[:, None]
    return np.where(classes, shares, 0.0)


def _pixels_of(
    annotation: Mapping[str, Any],
    image: ImageSize,
    kind: PointKind,
    given: Mapping[int, Sequence[Any]] | None,
) -> NDArray[np.int64] | None:
    """int64 [N, 2], the pixels (x, y) that an instance asked for; None if there are none."""
    height, width = image.require()
    if given is None:
        return _default_point(annotation, image)
    points = np.asarray(given.get(annotation["id"], ()), dtype=np.float64)
    if points.size == 0:
        return None
    if points.size % 2 or points.ndim > 2 or (points.ndim == 2 and points.shape[1] != 2):
        raise ValueError(f"given: annotation {annotation['id']}: points must be (x, y) pairs; correct them")
    points = points.reshape(-1, 2)
    if kind == "point" and len(points) != 1:
        raise ValueError(
            f"given: annotation {annotation['id']}: has {len(points)} points; kind 'point' takes one"
        )
    if not ((points >= 0) & (points <= 1)).all():
        raise ValueError(
            f"given: annotation {annotation['id']}: a point is outside [0, 1]; use canvas fractions"
        )
    size = np.array([width, height])
    return np.minimum((points * size).astype(np.int64), size - 1)


def _default_point(annotation: Mapping[str, Any], image: ImageSize) -> NDArray[np.int64]:
    """int64 [1, 2], the box centre, moved to the nearest mask pixel where it is outside the mask."""
    height, width = image.require()
    box = annotation.get("bbox")
    if box is None:
        raise ValueError(f"annotation {annotation['id']}: field 'bbox' is missing; add it or pass given=")
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    pixel = np.clip(centre.astype(np.int64), 0, [width - 1, height - 1])
    region = annotation_region(annotation, image)
    if region is not None and not pixels_inside([region], pixel[:1], pixel[1:]).item():
        ys, xs = np.nonzero(coco_mask.decode(region))
        if len(xs):
            nearest = np.argmin((xs + 0.5 - centre[0]) ** 2 + (ys + 0.5 - centre[1]) ** 2)
            pixel = np.array([xs[nearest], ys[nearest]])
    return pixel[None].astype(np.int64)
