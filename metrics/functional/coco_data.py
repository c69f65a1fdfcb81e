"""Reading COCO ground truth and COCO results, with errors that name the entry and the fix.

Conventions of every function in `metrics.functional` that takes `gt` and `detections`:

* `gt` is a COCO dictionary (``images``, ``annotations``, ``categories``) or the path of one. Boxes are
  ``[x, y, width, height]`` in pixels of the image, masks polygons or run lengths at the size of the image.
* `detections` is a list in the COCO results format (``image_id``, ``category_id``, ``score``, ``bbox`` and
  or ``segmentation``) or the path of one, in pixels of the same image.
* An annotation is *requested* unless ``iscrowd`` or ``ignore`` is set. ``ignore_reason`` (text) says why.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CocoSource",
    "Detection",
    "DetectionSource",
    "GroundTruth",
    "ImageSize",
    "count_reasons",
    "detection_columns",
    "load_detections",
    "load_ground_truth",
    "read_detections",
    "read_ground_truth",
    "select_images",
    "unscored_reason",
]

CocoSource: TypeAlias = Mapping[str, Any] | str | PathLike[str]
DetectionSource: TypeAlias = Sequence[Mapping[str, Any]] | str | PathLike[str]


@dataclass(frozen=True, slots=True)
class ImageSize:
    """One image of the ground truth.

    Attributes:
        id: Image id.
        height: Height in pixels, or None where the file gives none (enough for box metrics).
        width: Width in pixels, or None.
    """

    id: int
    height: int | None
    width: int | None

    def require(self) -> tuple[int, int]:
        """Height and width in pixels.

        Raises:
            ValueError: If the ground truth does not give them.
        """
        if self.height is None or self.width is None:
            raise ValueError(f"image {self.id}: height and width are missing; add them to the ground truth")
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Checked ground truth.

    Attributes:
        images: Images by id, in file order.
        annotations: Annotations by image id, in file order; every image has an entry.
        categories: Category names by id.
    """

    images: dict[int, ImageSize]
    annotations: dict[int, list[Mapping[str, Any]]]
    categories: dict[int, str]


@dataclass(frozen=True, slots=True)
class Detection:
    """One entry of a results list.

    Attributes:
        index: Position in the list as given.
        image_id: Image id.
        category_id: Category id.
        score: Confidence.
        bbox: (x, y, width, height) in pixels, or None.
        segmentation: COCO run lengths or polygons at image size, or None.
    """

    index: int
    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float] | None
    segmentation: Any | None


def _read(source: Any, what: str) -> tuple[Any, str]:
    """The parsed content and a name of it for messages."""
    if not isinstance(source, str | PathLike):
        return source, what
    path = Path(source)
    try:
        return json.loads(path.read_text(encoding="utf-8")), str(path)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give the {what} as a JSON file"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is not complete JSON ({error}); write the file again") from error


def _field(entry: Mapping[str, Any], key: str, where: str) -> Any:
    try:
        return entry[key]
    except (KeyError, TypeError):
        raise ValueError(f"{where}: field '{key}' is missing; add it") from None


def _identifier(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = _field(entry, key, where)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{where}: {key} {value!r} is not an integer; COCO ids are integers")
    return int(value)


def _index(entries: Iterable[Mapping[str, Any]], kind: str, name: str) -> dict[int, Mapping[str, Any]]:
    """Entries by id, refusing duplicates."""
    table: dict[int, Mapping[str, Any]] = {}
    for position, entry in enumerate(entries):
        identifier = _identifier(entry, "id", f"{name}: {kind} at position {position}")
        if identifier in table:
            raise ValueError(f"{name}: {kind} id {identifier} occurs twice; ids must be unique")
        table[identifier] = entry
    return table


def read_ground_truth(gt: CocoSource) -> tuple[Mapping[str, Any], str]:
    """A ground truth as it stands, and its name for messages.

    Raises:
        ValueError: If the file cannot be read or is no object.
    """
    content, name = _read(gt, "ground truth")
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: is a {type(content).__name__}; a COCO ground truth is an object")
    return content, name


def load_ground_truth(gt: CocoSource) -> GroundTruth:
    """Read and check a COCO ground truth.

    Args:
        gt: COCO dictionary or path of a JSON file.

    Returns:
        The checked ground truth; the annotations are the given mappings, unchanged.

    Raises:
        ValueError: If the file cannot be read, a field is missing, an id occurs twice, or an annotation
            names an image or category that does not exist.
    """
    content, name = read_ground_truth(gt)
    categories = _index(_field(content, "categories", name), "category", name)
    images = {
        identifier: ImageSize(identifier, entry.get("height"), entry.get("width"))
        for identifier, entry in _index(_field(content, "images", name), "image", name).items()
    }
    annotations: dict[int, list[Mapping[str, Any]]] = {identifier: [] for identifier in images}
    for identifier, entry in _index(_field(content, "annotations", name), "annotation", name).items():
        where = f"{name}: annotation {identifier}"
        image_id = _identifier(entry, "image_id", where)
        if image_id not in images:
            raise ValueError(f"{where}: image_id {image_id} is not among the images; add the image")
        category_id = _identifier(entry, "category_id", where)
        if category_id not in categories:
            raise ValueError(f"{where}: category_id {category_id} is not among the categories; add it")
        if entry.get("bbox") is not None:
            _checked_box(entry["bbox"], where)
        annotations[image_id].append(entry)
    names = {identifier: str(entry.get("name", identifier)) for identifier, entry in categories.items()}
    return GroundTruth(images=images, annotations=annotations, categories=names)


def _checked_box(box: Any, where: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: bbox {box!r} is not [x, y, width, height]; correct it") from None
    if not all(math.isfinite(value) for value in (x, y, width, height)):
        raise ValueError(f"{where}: bbox {box!r} is not finite; correct it")
    return x, y, width, height


def select_images(gt: GroundTruth, image_ids: Collection[int] | None) -> list[int]:
    """The image ids that are evaluated, in file order.

    Args:
        gt: Ground truth.
        image_ids: Ids to keep, or None for all.

    Raises:
        ValueError: If an id is not among the images.
    """
    if image_ids is None:
        return list(gt.images)
    wanted = set(image_ids)
    unknown = sorted(wanted - gt.images.keys())
    if unknown:
        raise ValueError(
            f"image_ids: {unknown[0]} is not among the images of the ground truth "
            f"({len(unknown)} unknown); give ids that exist"
        )
    return [image_id for image_id in gt.images if image_id in wanted]


def read_detections(detections: DetectionSource) -> tuple[Sequence[Any], str]:
    """A results list as it stands, and its name for messages.

    Raises:
        ValueError: If the file cannot be read or is no list.
    """
    content, name = _read(detections, "detections")
    if not isinstance(content, Sequence) or isinstance(content, str | bytes):
        raise ValueError(f"{name}: is a {type(content).__name__}; COCO results are a list")
    return content, name


def load_detections(
    detections: DetectionSource, gt: GroundTruth, image_ids: Collection[int] | None = None
) -> dict[int, list[Detection]]:
    """Read and check detections.

    Args:
        detections: COCO results list or path of a JSON file; may be empty.
        gt: Ground truth that the image ids refer to.
        image_ids: Images to keep, or None for all images of `gt`.

    Returns:
        Detections by image id in list order; every kept image has an entry. Detections on other images of
        the ground truth are left out; detections of a category that the ground truth lacks are kept.

    Raises:
        ValueError: If the file cannot be read, a field is missing or not finite, or an image is unknown.
    """
    content, name = read_detections(detections)
    table: dict[int, list[Detection]] = {image_id: [] for image_id in select_images(gt, image_ids)}
    columns = detection_columns(content, gt)
    if columns is not None:
        identifiers, categories, scores, boxes = (column.tolist() for column in columns)
        rows = zip(content, identifiers, categories, scores, boxes, strict=True)
        for index, (entry, image_id, category_id, score, box) in enumerate(rows):
            if image_id in table:
                segmentation = entry.get("segmentation") or None
                one = Detection(index, image_id, category_id, score, tuple(box), segmentation)
                table[image_id].append(one)
        return table
    for index, entry in enumerate(content):
        where = f"{name}: entry {index}"
        image_id = _identifier(entry, "image_id", where)
        if image_id not in gt.images:
            raise ValueError(f"{where}: image_id {image_id} is not in the ground truth; match the two files")
        if image_id in table:
            table[image_id].append(_detection(entry, index, where))
    return table


Columns: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def detection_columns(content: Sequence[Any], gt: GroundTruth) -> Columns | None:
    """A results list as checked columns, where all entries are regular and have boxes.

    Reading large lists entry by entry takes ten times as long.

    Args:
        content: COCO results list.
        gt: Ground truth that the image ids refer to.

    Returns:
        Image ids, category ids, scores [N] and boxes [N, 4] (x, y, width, height in pixels); None where anything
        is irregular or the list is empty. Then the entries are to be read one by one, which names the bad one.
    """
    if not content or not isinstance(content[0], Mapping):
        return None
    try:
        image_ids = np.array([entry["image_id"] for entry in content])
        category_ids = np.array([entry["category_id"] for entry in content])
        scores = np.array([entry["score"] for entry in content])
        boxes = np.array([entry["bbox"] for entry in content])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # A truth value among integers becomes an integer unnoticed: types are looked at as well.
    kinds = {type(entry[name]) for entry in content for name in ("image_id", "category_id", "score")}
    if any(issubclass(kind, bool | np.bool_ | str) for kind in kinds):
        return None
    numbers = scores.dtype.kind in "fiu" and boxes.dtype.kind in "fiu"
    identifiers = image_ids.dtype.kind in "iu" and category_ids.dtype.kind in "iu"
    if not (numbers and identifiers and boxes.shape == (len(content), 4)):
        return None
    scores, boxes = scores.astype(np.float64), boxes.astype(np.float64)
    known = np.fromiter(gt.images, dtype=np.int64, count=len(gt.images))
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all() and np.isin(image_ids, known).all()):
        return None
    return image_ids.astype(np.int64), category_ids.astype(np.int64), scores, boxes


def _detection(entry: Mapping[str, Any], index: int, where: str) -> Detection:
    try:
        score = float(entry.get("score"))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: score {entry.get('score')!r} is not a number; add or correct it"
        ) from None
    if not math.isfinite(score):
        raise ValueError(f"{where}: score {score} is not finite; remove or correct the entry")
    box, segmentation = entry.get("bbox"), entry.get("segmentation") or None
    # Segmentation results carry an empty box in some files.
    checked = None if box is None or box == [] else _checked_box(box, where)
    if checked is None and segmentation is None:
        raise ValueError(f"{where}: has neither bbox nor segmentation; add one")
    return Detection(
        index=index,
        image_id=int(entry["image_id"]),
        category_id=_identifier(entry, "category_id", where),
        score=score,
        bbox=checked,
        segmentation=segmentation,
    )


def unscored_reason(annotation: Mapping[str, Any]) -> str | None:
    """Why an annotation is not a requested instance; None if it is one."""
    if annotation.get("iscrowd"):
        return str(annotation.get("ignore_reason") or "crowd")
    if annotation.get("ignore"):
        return str(annotation.get("ignore_reason") or "ignored")
    return None


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, sorted by name."""
    return dict(sorted(Counter(reasons).items()))
