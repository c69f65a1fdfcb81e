"""Checks of detection results in COCO's results format: a list of boxes or masks with scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from instbench.datasets.problems import (
    Problem,
    error,
    id_message,
    ids_of,
    is_id,
    is_number,
    short,
    warning,
)
from instbench.datasets.validation import has_size
from instbench.errors import InputError
from instbench.layouts.rle import from_coco_segmentation

__all__ = ["check_results", "looks_like_results"]


def looks_like_results(data: Any) -> bool:
    """Whether the content of a file is a list, as results are and annotations are not."""
    return isinstance(data, list)


def check_results(data: Any, annotations: Mapping[str, Any] | None = None) -> list[Problem]:
    """Checks detection results.

    Args:
        data: Content of the file: ``[{"image_id", "category_id", "bbox" or "segmentation", "score"}, ...]``.
        annotations: Content of the instances file that they are for; None skips the comparison of ids and
            sizes with it.

    Returns:
        All problems in file order.
    """
    if not isinstance(data, list):
        return [error("top level", f"must be a list of detections, not {type(data).__name__}")]
    known = None if annotations is None else _Known(annotations)
    problems: list[Problem] = []
    for position, record in enumerate(data):
        where = f"detection at position {position}"
        if not isinstance(record, dict):
            problems.append(error(where, "must be an object"))
            continue
        problems += _check_ids(record, where, known)
        problems += _check_score(record, where)
        problems += _check_location(record, where, known)
    return problems


class _Known:
    """Ids and sizes of an instances file."""

    def __init__(self, annotations: Mapping[str, Any]) -> None:
        images = annotations.get("images")
        records = images if isinstance(images, list) else []
        categories = annotations.get("categories")
        self.ids = {
            "image_id": ids_of(records),
            "category_id": ids_of(categories if isinstance(categories, list) else []),
        }
        self.sizes = {
            image["id"]: (image["height"], image["width"])
            for image in records
            if isinstance(image, dict) and is_id(image.get("id")) and has_size(image)
        }


def _check_ids(record: Mapping[str, Any], where: str, known: _Known | None) -> Iterator[Problem]:
    for key, kind in (("image_id", "images"), ("category_id", "categories")):
        value = record.get(key)
        if not is_id(value):
            yield error(f"{where}: {key}", id_message(value))
        elif known is not None and value not in known.ids[key]:
            message = f"{value} is not in {kind} of the annotations; map the ids or remove this detection"
            yield error(f"{where}: {key}", message)


def _check_score(record: Mapping[str, Any], where: str) -> Iterator[Problem]:
    score = record.get("score")
    if score is None:
        yield error(f"{where}: score", "is missing; every detection needs one")
    elif not is_number(score):
        message = f"must be a finite number, not {short(score)}; fix the detector or remove this detection"
        yield error(f"{where}: score", message)


def _check_location(record: Mapping[str, Any], where: str, known: _Known | None) -> Iterator[Problem]:
    box, segmentation = record.get("bbox"), record.get("segmentation")
    if box is None and segmentation is None:
        yield error(f"{where}: bbox", "is missing; a detection needs a bbox or a segmentation")
    if box is not None:
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            yield error(f"{where}: bbox", f"must be finite [x, y, width, height] in pixels, not {short(box)}")
        elif box[2] <= 0 or box[3] <= 0:
            yield warning(f"{where}: bbox", f"zero-area box {short(box)}; it can match nothing")
    if segmentation is not None:
        yield from _check_mask(record, segmentation, where, known)


def _check_mask(
    record: Mapping[str, Any], segmentation: Any, where: str, known: _Known | None
) -> Iterator[Problem]:
    image_id = record.get("image_id")
    size = known.sizes.get(image_id) if known is not None and is_id(image_id) else None
    if size is None and isinstance(segmentation, dict):
        own = segmentation.get("size")
        if not isinstance(own, list) or len(own) != 2 or not all(type(side) is int for side in own):
            yield error(f"{where}: segmentation.size", f"must be [height, width], not {short(own)}")
            return
        size = own[0], own[1]
    if size is None:
        return  # polygons of an image of unknown size
    try:
        from_coco_segmentation(segmentation, *size)
    except InputError as problem:
        yield error(where, str(problem))
