"""Checks of COCO-format data that find every problem at once.

Errors make a file unusable. Warnings do not: degenerate instances (zero area, outside the image,
empty mask) are kept, marked and counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from instbench.datasets.lvis import check_federated, is_lvis
from instbench.datasets.problems import (
    Problem,
    Severity,
    duplicates,
    error,
    id_message,
    ids_of,
    is_id,
    is_number,
    is_plain_relative_name,
    is_text,
    missing_lists,
    raise_on_errors,
    read_json,
    record_name,
    short,
    warning,
)
from instbench.errors import InputError
from instbench.layouts.rle import MAX_SIDE, area, check_polygons, from_coco_segmentation, usable_polygons

__all__ = [
    "Problem",
    "Severity",
    "check_annotations",
    "check_captions",
    "degenerate_box_reason",
    "has_size",
    "is_id",
    "is_plain_relative_name",
    "raise_on_errors",
    "read_json",
]

_OUTSIDE_TOLERANCE = 1.0  # pixels; annotation tools round


def degenerate_box_reason(bbox_xywh: Iterable[float], width: int, height: int) -> str | None:
    """Why a box cannot be asked for, or None.

    Args:
        bbox_xywh: Box (x, y, width, height) in pixels.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        ``"zero-area box"``, ``"box outside the image"`` or None.
    """
    x, y, box_width, box_height = bbox_xywh
    if box_width <= 0 or box_height <= 0:
        return "zero-area box"
    if min(x + box_width, width) <= max(x, 0.0) or min(y + box_height, height) <= max(y, 0.0):
        return "box outside the image"
    return None


def check_annotations(data: Any, *, rasterise: bool = False) -> list[Problem]:
    """Checks a COCO or LVIS ``instances`` dict.

    Args:
        data: Content of the file.
        rasterise: Also draw every polygon to find masks that come out empty (slower).

    Returns:
        All problems in file order; empty if the data is clean.
    """
    missing = missing_lists(data, ("images", "annotations", "categories"))
    if missing:
        return missing
    problems = list(_check_images(data["images"]))
    problems += _check_categories(data["categories"])
    sizes = {
        image["id"]: (image["width"], image["height"])
        for image in data["images"]
        if isinstance(image, dict) and is_id(image.get("id")) and has_size(image)
    }
    image_ids = ids_of(data["images"])
    category_ids = ids_of(data["categories"])
    problems += duplicates(data["annotations"], "annotation")
    for position, annotation in enumerate(data["annotations"]):
        if not isinstance(annotation, dict):
            problems.append(error(f"annotations[{position}]", "must be an object"))
            continue
        where = record_name("annotation", annotation, position)
        problems += _check_ids(annotation, where, image_ids, category_ids)
        size = sizes.get(annotation["image_id"]) if is_id(annotation.get("image_id")) else None
        problems += _check_box(annotation, where, size)
        problems += _check_extras(annotation, where)
        if size is not None:
            problems += _check_segmentation(annotation, where, size, rasterise=rasterise)
    if is_lvis(data):
        problems += check_federated(data)
    return problems


def check_captions(data: Any, *, image_ids: Iterable[int] | None = None) -> list[Problem]:
    """Checks a COCO ``captions`` dict.

    Args:
        data: Content of the file.
        image_ids: Ids of the images that need captions; None skips that comparison.

    Returns:
        All problems in file order.
    """
    missing = missing_lists(data, ("annotations",))
    if missing:
        return missing
    problems: list[Problem] = list(duplicates(data["annotations"], "caption"))
    captioned: set[int] = set()
    for position, annotation in enumerate(data["annotations"]):
        if not isinstance(annotation, dict):
            problems.append(error(f"annotations[{position}]", "must be an object"))
            continue
        where = record_name("caption", annotation, position)
        if not is_id(annotation.get("image_id")):
            problems.append(error(f"{where}: image_id", id_message(annotation.get("image_id"))))
            continue
        text = annotation.get("caption")
        if not isinstance(text, str):
            problems.append(error(f"{where}: caption", "must be text; is this an instances file?"))
        elif not text.strip():
            problems.append(warning(f"{where}: caption", "is empty and is skipped"))
        elif not is_text(text):
            problems.append(
                error(f"{where}: caption", f"holds half a character: {short(text)}; write it again")
            )
        else:
            captioned.add(annotation["image_id"])
    if image_ids is not None:
        uncaptioned = sorted(set(image_ids) - captioned)
        if uncaptioned:
            shown = ", ".join(map(str, uncaptioned[:5])) + (", ..." if len(uncaptioned) > 5 else "")
            message = f"{len(uncaptioned)} images have no caption ({shown}); names are used"
            problems.append(warning("captions", message))
    return problems


def has_size(image: Mapping[str, Any]) -> bool:
    """Whether the record of an image has a usable width and height in pixels."""
    return all(type(image.get(key)) is int and 0 < image[key] <= MAX_SIDE for key in ("width", "height"))


def _check_images(images: list[Any]) -> Iterator[Problem]:
    yield from duplicates(images, "image")
    for position, image in enumerate(images):
        if not isinstance(image, dict):
            yield error(f"images[{position}]", "must be an object")
            continue
        where = record_name("image", image, position)
        if not has_size(image):
            size = f"{short(image.get('width'))} x {short(image.get('height'))}"
            yield error(f"{where}: width, height", f"must be integers from 1 to {MAX_SIDE}, not {size}")
        name = image.get("file_name")
        if name is not None and not is_plain_relative_name(name):
            yield error(
                f"{where}: file_name",
                f"must be a plain relative name inside the folder, not {short(name)}",
            )


def _check_categories(categories: list[Any]) -> Iterator[Problem]:
    yield from duplicates(categories, "category")
    names: set[Any] = set()
    for position, category in enumerate(categories):
        if not isinstance(category, dict):
            yield error(f"categories[{position}]", "must be an object")
            continue
        where = record_name("category", category, position)
        name = category.get("name")
        if not is_text(name):
            yield error(f"{where}: name", f"must be a non-empty text, not {short(name)}")
        elif name in names:
            yield error(f"{where}: name", f"{name!r} names two categories; rename one")
        else:
            names.add(name)


def _check_ids(
    annotation: Mapping[str, Any], where: str, image_ids: set[int], category_ids: set[int]
) -> Iterator[Problem]:
    for key, known, kind in (("image_id", image_ids, "images"), ("category_id", category_ids, "categories")):
        value = annotation.get(key)
        if not is_id(value):
            yield error(f"{where}: {key}", id_message(value))
        elif value not in known:
            yield error(
                f"{where}: {key}", f"{value} is not in {kind}; add it there or remove this annotation"
            )


def _check_box(annotation: Mapping[str, Any], where: str, size: tuple[int, int] | None) -> Iterator[Problem]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        yield error(f"{where}: bbox", f"must be [x, y, width, height] in pixels, not {short(box)}")
        return
    if not all(is_number(value) for value in box):
        yield error(f"{where}: bbox", f"holds NaN or infinity: {short(box)}; write finite numbers")
        return
    if size is None:
        return
    width, height = size
    reason = degenerate_box_reason(box, width, height)
    if reason is not None:
        message = f"{reason} {short(box)} in a {width}x{height} image; kept as degenerate, not asked for"
        yield warning(f"{where}: bbox", message)
        return
    x, y, box_width, box_height = box
    overhang = max(-x, -y, x + box_width - width, y + box_height - height)
    if overhang > _OUTSIDE_TOLERANCE:
        message = f"{short(box)} reaches {overhang:g} pixels out of the {width}x{height} image; clipped"
        yield warning(f"{where}: bbox", message)


def _check_extras(annotation: Mapping[str, Any], where: str) -> Iterator[Problem]:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        yield error(f"{where}: iscrowd", f"must be 0 or 1, not {short(crowd)}")
    value = annotation.get("area")
    if value is not None and (not is_number(value) or value < 0):
        yield error(f"{where}: area", f"must be a number >= 0, not {short(value)}")
    attributes = annotation.get("attributes")
    if attributes is not None and not isinstance(attributes, dict):
        yield error(
            f"{where}: attributes", f"must be an object like {{'color': 'red'}}, not {short(attributes)}"
        )
    elif attributes:
        for key in ("color", "texture"):
            if key in attributes and not is_text(attributes[key]):
                yield error(f"{where}: attributes.{key}", f"must be a word, not {short(attributes[key])}")
    captions = annotation.get("captions", annotation.get("caption"))
    if captions is not None:
        texts = captions if isinstance(captions, list) else [captions]
        if not texts or not all(map(is_text, texts)):
            yield error(f"{where}: captions", f"must be non-empty texts, not {short(captions)}")


def _check_segmentation(
    annotation: Mapping[str, Any], where: str, size: tuple[int, int], *, rasterise: bool
) -> Iterator[Problem]:
    segmentation = annotation.get("segmentation")
    if segmentation is None or segmentation == []:
        return  # a dataset of boxes only
    width, height = size
    polygons = isinstance(segmentation, list)
    try:
        # Run lengths are cheap to read in full; polygons are drawn only on request.
        if polygons and not rasterise:
            check_polygons(segmentation, height, width)
            empty = not usable_polygons(segmentation)
        else:
            empty = area(from_coco_segmentation(segmentation, height, width)) == 0
    except InputError as problem:
        yield error(where, str(problem))
        return
    lengths = [len(part) // 2 for part in segmentation if len(part) < 6] if polygons else []
    if lengths:
        points = ", ".join(map(str, lengths[:5])) + (", ..." if len(lengths) > 5 else "")
        message = f"has parts of fewer than 3 points ({points}); they cover nothing, remove them"
        yield warning(f"{where}: segmentation", message)
    if empty:
        yield warning(f"{where}: segmentation", "empty mask; kept as degenerate, not asked for")
