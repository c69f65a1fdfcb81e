"""Checks of COCO-format data that find every problem at once.

Errors make a file unusable. Warnings do not: degenerate instances (zero area, outside the image,
empty mask) are kept, marked and counted, never dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from instbench.errors import InputError
from instbench.layouts.rle import MAX_SIDE, area, check_polygons, from_coco_segmentation, usable_polygons

__all__ = [
    "Problem",
    "Severity",
    "check_annotations",
    "check_captions",
    "degenerate_box_reason",
    "is_id",
    "is_plain_relative_name",
    "raise_on_errors",
    "read_json",
]

_MAX_ID = 2**53  # ids survive every JSON reader up to here
_OUTSIDE_TOLERANCE = 1.0  # pixels; annotation tools round


class Severity(StrEnum):
    """How bad a problem is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        severity: Error (the file cannot be used) or warning.
        where: Part of the file, e.g. ``"annotation 12: bbox"``.
        message: What is wrong and what to do.
    """

    severity: Severity
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        Its content; NaN and Infinity pass and are found by the checks.

    Raises:
        InputError: If the file is missing, unreadable, truncated or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the JSON file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); is this a JSON file?") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: no valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "the file is truncated or damaged"
        ) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: no usable JSON ({reason})") from None


def raise_on_errors(problems: Iterable[Problem], source: str) -> None:
    """Raises the first error and says how many more there are.

    Args:
        problems: Findings of a check.
        source: File name for the message.

    Raises:
        InputError: If any finding is an error.
    """
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more; `instbench validate` lists them)" if len(errors) > 1 else ""
        raise InputError(f"{source}: {errors[0]}{more}")


def is_plain_relative_name(name: Any) -> bool:
    """Whether a file name from a data file is safe to join to a folder: relative, no ``..``, no tricks."""
    if not isinstance(name, str) or not name or any(ord(character) < 32 for character in name):
        return False
    if "\\" in name or ":" in name or name.startswith(("/", "~")):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/")) and PurePosixPath(name).name != ""


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
    """Checks a COCO ``instances`` dict.

    Args:
        data: Content of the file.
        rasterise: Also draw every polygon to find masks that come out empty (slower).

    Returns:
        All problems in file order; empty if the data is clean.
    """
    missing = _missing_lists(data, ("images", "annotations", "categories"))
    if missing:
        return missing
    problems = list(_check_images(data["images"]))
    problems += _check_categories(data["categories"])
    sizes = {
        image["id"]: (image["width"], image["height"])
        for image in data["images"]
        if isinstance(image, dict) and is_id(image.get("id")) and _has_size(image)
    }
    image_ids = _ids(data["images"])
    category_ids = _ids(data["categories"])
    problems += _duplicates(data["annotations"], "annotation")
    for position, annotation in enumerate(data["annotations"]):
        if not isinstance(annotation, dict):
            problems.append(_error(f"annotations[{position}]", "must be an object"))
            continue
        where = _name("annotation", annotation, position)
        problems += _check_ids(annotation, where, image_ids, category_ids)
        size = sizes.get(annotation["image_id"]) if is_id(annotation.get("image_id")) else None
        problems += _check_box(annotation, where, size)
        problems += _check_extras(annotation, where)
        if size is not None:
            problems += _check_segmentation(annotation, where, size, rasterise=rasterise)
    return problems


def check_captions(data: Any, *, image_ids: Iterable[int] | None = None) -> list[Problem]:
    """Checks a COCO ``captions`` dict.

    Args:
        data: Content of the file.
        image_ids: Ids of the images that need captions; None skips that comparison.

    Returns:
        All problems in file order.
    """
    missing = _missing_lists(data, ("annotations",))
    if missing:
        return missing
    problems: list[Problem] = list(_duplicates(data["annotations"], "caption"))
    captioned: set[int] = set()
    for position, annotation in enumerate(data["annotations"]):
        if not isinstance(annotation, dict):
            problems.append(_error(f"annotations[{position}]", "must be an object"))
            continue
        where = _name("caption", annotation, position)
        if not is_id(annotation.get("image_id")):
            problems.append(_error(f"{where}: image_id", _id_message(annotation.get("image_id"))))
            continue
        text = annotation.get("caption")
        if not isinstance(text, str):
            problems.append(_error(f"{where}: caption", "must be text; is this an instances file?"))
        elif not text.strip():
            problems.append(_warning(f"{where}: caption", "is empty and is skipped"))
        else:
            captioned.add(annotation["image_id"])
    if image_ids is not None:
        uncaptioned = sorted(set(image_ids) - captioned)
        if uncaptioned:
            shown = ", ".join(map(str, uncaptioned[:5])) + (", ..." if len(uncaptioned) > 5 else "")
            message = f"{len(uncaptioned)} images have no caption ({shown}); names are used"
            problems.append(_warning("captions", message))
    return problems


def is_id(value: Any) -> bool:
    """Whether a value can be an id: an integer from 0 to 2**53."""
    return type(value) is int and 0 <= value <= _MAX_ID


def _error(where: str, message: str) -> Problem:
    return Problem(Severity.ERROR, where, message)


def _warning(where: str, message: str) -> Problem:
    return Problem(Severity.WARNING, where, message)


def _id_message(value: Any) -> str:
    if value is None:
        return "is missing"
    return f"must be an integer from 0 to 2**53, not {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name(kind: str, record: Mapping[str, Any], position: int) -> str:
    return f"{kind} {record['id']}" if is_id(record.get("id")) else f"{kind} at position {position}"


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _missing_lists(data: Any, keys: Iterable[str]) -> list[Problem]:
    if isinstance(data, list):
        return [_error("top level", "is a list (detection results?); expected a COCO annotation object")]
    if not isinstance(data, Mapping):
        return [_error("top level", f"must be a COCO annotation object, not {type(data).__name__}")]
    problems = []
    for key in keys:
        if key not in data:
            problems.append(_error(key, "is missing; expected a COCO file with this list"))
        elif not isinstance(data[key], list):
            problems.append(_error(key, f"must be a list, not {type(data[key]).__name__}"))
    return problems


def _ids(records: Iterable[Any]) -> set[Hashable]:
    return {record["id"] for record in records if isinstance(record, dict) and is_id(record.get("id"))}


def _duplicates(records: Iterable[Any], kind: str) -> Iterator[Problem]:
    seen: set[Any] = set()
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            continue
        value = record.get("id")
        if not is_id(value):
            yield _error(f"{kind} at position {position}: id", _id_message(value))
        elif value in seen:
            yield _error(f"{kind} {value}: id", "occurs twice; ids must be unique")
        else:
            seen.add(value)


def _has_size(image: Mapping[str, Any]) -> bool:
    return all(type(image.get(key)) is int and 0 < image[key] <= MAX_SIDE for key in ("width", "height"))


def _check_images(images: list[Any]) -> Iterator[Problem]:
    yield from _duplicates(images, "image")
    for position, image in enumerate(images):
        if not isinstance(image, dict):
            yield _error(f"images[{position}]", "must be an object")
            continue
        where = _name("image", image, position)
        if not _has_size(image):
            size = f"{_short(image.get('width'))} x {_short(image.get('height'))}"
            yield _error(f"{where}: width, height", f"must be integers from 1 to {MAX_SIDE}, not {size}")
        name = image.get("file_name")
        if name is not None and not is_plain_relative_name(name):
            yield _error(
                f"{where}: file_name",
                f"must be a plain relative name inside the folder, not {_short(name)}",
            )


def _check_categories(categories: list[Any]) -> Iterator[Problem]:
    yield from _duplicates(categories, "category")
    names: set[Any] = set()
    for position, category in enumerate(categories):
        if not isinstance(category, dict):
            yield _error(f"categories[{position}]", "must be an object")
            continue
        where = _name("category", category, position)
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            yield _error(f"{where}: name", f"must be a non-empty text, not {_short(name)}")
        elif name in names:
            yield _error(f"{where}: name", f"{name!r} names two categories; rename one")
        else:
            names.add(name)


def _check_ids(
    annotation: Mapping[str, Any], where: str, image_ids: set[Hashable], category_ids: set[Hashable]
) -> Iterator[Problem]:
    for key, known, kind in (("image_id", image_ids, "images"), ("category_id", category_ids, "categories")):
        value = annotation.get(key)
        if not is_id(value):
            yield _error(f"{where}: {key}", _id_message(value))
        elif value not in known:
            yield _error(f"{where}: {key}", f"{value} is not in {kind}")


def _check_box(annotation: Mapping[str, Any], where: str, size: tuple[int, int] | None) -> Iterator[Problem]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        yield _error(f"{where}: bbox", f"must be [x, y, width, height] in pixels, not {_short(box)}")
        return
    if not all(math.isfinite(value) for value in box):
        yield _error(f"{where}: bbox", f"holds NaN or infinity: {_short(box)}")
        return
    if size is None:
        return
    width, height = size
    reason = degenerate_box_reason(box, width, height)
    if reason is not None:
        message = f"{reason} {_short(box)} in a {width}x{height} image; kept as degenerate, not asked for"
        yield _warning(f"{where}: bbox", message)
        return
    x, y, box_width, box_height = box
    overhang = max(-x, -y, x + box_width - width, y + box_height - height)
    if overhang > _OUTSIDE_TOLERANCE:
        message = f"{_short(box)} reaches {overhang:g} pixels out of the {width}x{height} image; clipped"
        yield _warning(f"{where}: bbox", message)


def _check_extras(annotation: Mapping[str, Any], where: str) -> Iterator[Problem]:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        yield _error(f"{where}: iscrowd", f"must be 0 or 1, not {_short(crowd)}")
    value = annotation.get("area")
    if value is not None and (not _number(value) or value < 0):
        yield _error(f"{where}: area", f"must be a number >= 0, not {_short(value)}")
    attributes = annotation.get("attributes")
    if attributes is not None and not isinstance(attributes, dict):
        yield _error(
            f"{where}: attributes", f"must be an object like {{'color': 'red'}}, not {_short(attributes)}"
        )
    elif attributes:
        for key in ("color", "texture"):
            if key in attributes and not (isinstance(attributes[key], str) and attributes[key].strip()):
                yield _error(f"{where}: attributes.{key}", f"must be a word, not {_short(attributes[key])}")
    captions = annotation.get("captions", annotation.get("caption"))
    if captions is not None:
        texts = captions if isinstance(captions, list) else [captions]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            yield _error(f"{where}: captions", f"must be non-empty texts, not {_short(captions)}")


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
    except InputError as error:
        yield _error(where, str(error))
        return
    short = [len(part) // 2 for part in segmentation if len(part) < 6] if polygons else []
    if short:
        points = ", ".join(map(str, short))
        yield _warning(f"{where}: segmentation", f"has parts of fewer than 3 points ({points})")
    if empty:
        yield _warning(f"{where}: segmentation", "empty mask; kept as degenerate, not asked for")
