"""A layout that a person wrote: our own JSON, a short form for hands, and the published demo's form.

* **Ours**: one object as `instbench.layouts.serialization` writes it (a line of ``layouts.jsonl``).
* **Short**: ``{"caption", "units", "width", "height", "instances": [{"phrase", "box", ...}]}``. ``units`` is
  ``"relative"`` (all numbers in [0, 1] of the canvas) or ``"pixels"`` (of the stated width and height);
  ``box`` is (x0, y0, x1, y1), ``point`` (x, y), ``scribble`` a list of points, ``mask`` COCO run lengths at
  width x height or polygons in the same units.
* **Demo**: ``{"caption", "width", "height", "annos": [{"caption", "bbox", "mask", "point", "scribble",
  "category_name"}]}`` in pixels, ``bbox`` as (x, y, width, height), an empty ``mask`` for none, as the
  published inference script reads it.

x runs to the right and y down, as in every layout. Everything is bounded before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from instbench.errors import InputError
from instbench.layouts.rle import area, decode, from_coco_segmentation
from instbench.layouts.serialization import layout_from_json
from instbench.layouts.types import Instance, Layout, MaskRLE, PointXY

__all__ = ["DATASET", "LIMITS", "Limits", "check_drawable", "layout_from_object", "load_json", "read_layout"]

DATASET = "handwritten"
"""Name of the data set of a layout from a file for hands."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may hold at most.

    Attributes:
        file_bytes: Size of the file.
        depth: Lists and objects inside each other.
        instances: Instances of a layout.
        points: Points of a scribble, or of one part of a polygon.
        text: Characters of a caption, phrase or name.
        side: Width and height in pixels.
    """

    file_bytes: int = 16 * 2**20
    depth: int = 12
    instances: int = 256
    points: int = 4096
    text: int = 10_000
    side: int = 4096


LIMITS = Limits()

_UNITS = ("relative", "pixels")
_DEFAULT_SIDE = 512  # pixels of the grid of masks, where relative units need none
_ROUNDING = 1e-6  # share of the canvas by which a number may lie outside
_SHORT = {"caption", "units", "width", "height", "instances"}
_SHORT_INSTANCE = {"phrase", "category", "color", "texture", "box", "point", "scribble", "mask"}
_LOCATIONS = ("box", "point", "scribble", "mask")


def read_layout(path: Path) -> Layout:
    """Reads a layout in any of the three forms.

    Args:
        path: JSON file of one layout.

    Returns:
        The layout: relative coordinates, at least one location for each instance that is asked for.

    Raises:
        InputError: If the file is bad; one line with file, field and fix.
    """
    data = load_json(path)
    try:
        return layout_from_object(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def layout_from_object(data: Any) -> Layout:
    """Reads a layout from parsed JSON; the three forms are told by their fields.

    Raises:
        InputError: If it is none of them, or a field is wrong; names the field and the fix.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"must hold one JSON object, not {_kind(data)}; write {{...}}")
    if "annos" in data:
        return check_drawable(_from_demo(data))
    if "schema_version" in data:
        return check_drawable(layout_from_json(data))
    if "instances" in data:
        return check_drawable(_from_short(data))
    raise InputError("instances: missing; give a list of objects (or annos, in the published demo's form)")


def load_json(path: Path) -> Any:
    """Parses a JSON file of bounded size and depth.

    Raises:
        InputError: If it is missing, too large, nested too deeply, no JSON, holds NaN, or names a field twice.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name the JSON file in it")
        if not path.is_file():
            raise InputError(f"{path}: no such file; check the path")
        with path.open("rb") as stream:
            data = stream.read(LIMITS.file_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > LIMITS.file_bytes:
        raise InputError(
            f"{path}: more than {LIMITS.file_bytes // 2**20} MiB; a layout is one image, not a data set"
        )
    try:
        value = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); is this a JSON file?") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: no valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); correct it there"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(
            f"{path}: nested too deeply; a layout needs no more than {LIMITS.depth} levels"
        ) from None
    except ValueError as error:  # an integer of too many digits
        raise InputError(f"{path}: no usable JSON ({error})") from None
    if _depth_exceeds(value, LIMITS.depth):
        raise InputError(f"{path}: nested too deeply; a layout needs no more than {LIMITS.depth} levels")
    return value


def check_drawable(layout: Layout) -> Layout:
    """Checks what a model needs of a layout, whatever form it came in.

    Args:
        layout: The layout.

    Returns:
        The same layout.

    Raises:
        InputError: If there is too much, a text is empty or too long, a coordinate lies outside the canvas, a
            box has no area, a scribble has one point, a mask is empty, or an instance has no location.
    """
    if len(layout.instances) > LIMITS.instances:
        raise InputError(
            f"instances: {len(layout.instances)}, at most {LIMITS.instances} are read; drop some"
        )
    if max(layout.source_width, layout.source_height) > LIMITS.side:
        raise InputError(f"source_width, source_height: at most {LIMITS.side} pixels a side")
    _bounded(layout.caption, "caption")
    for number, instance in enumerate(layout.instances):
        if not instance.is_ignored:
            _check_instance(instance, f"instances.{number}")
    return layout


def _check_instance(instance: Instance, where: str) -> None:
    if not instance.phrase.strip():
        raise InputError(f"{where}.phrase: is empty; describe the object")
    for name in ("phrase", "category"):
        _bounded(getattr(instance, name), f"{where}.{name}")
    box = instance.box_xyxy
    if box is not None:
        _inside((box[:2], box[2:]), f"{where}.box")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise InputError(f"{where}.box: has no area; give x0 < x1 and y0 < y1")
    if instance.point_xy is not None:
        _inside((instance.point_xy,), f"{where}.point")
    for name in ("scribble", "mask_points"):
        points = getattr(instance, f"{name}_xy")
        if points is None:
            continue
        if not 2 <= len(points) <= LIMITS.points:
            raise InputError(f"{where}.{name}: {len(points)} points; give from 2 to {LIMITS.points}")
        _inside(points, f"{where}.{name}")
    if instance.mask is not None and area(instance.mask) == 0:
        raise InputError(f"{where}.mask: is empty; mark the object or leave the mask out")
    if all(one is None for one in (box, instance.point_xy, instance.scribble_xy, instance.mask)):
        raise InputError(f"{where}: has no location; give a {', a '.join(_LOCATIONS)}")


def _inside(points: tuple[tuple[float, ...], ...], where: str) -> None:
    for point in points:
        if not all(0.0 <= value <= 1.0 for value in point):
            raise InputError(
                f"{where}: lies outside the canvas; keep it between 0 and 1 (or inside width and height)"
            )


# -- the form for hands


def _from_short(data: Mapping[str, Any]) -> Layout:
    _known(data, _SHORT, "")
    units = data.get("units")
    if units not in _UNITS:
        raise InputError(
            f'units: {_shown(units)} must say what the numbers are; write "relative" or "pixels"'
        )
    pixels = units == "pixels"
    width, height = (_side(data, name, None if pixels else _DEFAULT_SIDE) for name in ("width", "height"))
    scale = (width, height) if pixels else (1, 1)
    instances = []
    for number, record in enumerate(_records(data, "instances")):
        where = f"instances.{number}"
        _known(record, _SHORT_INSTANCE, f"{where}.")
        phrase = _text(record, "phrase", where)
        instance = Instance(
            phrase=phrase,
            category=_text(record, "category", where, phrase),
            category_id=0,
            annotation_id=number + 1,
            box_xyxy=_box(record.get("box"), f"{where}.box", scale),
            mask=_mask(record.get("mask"), f"{where}.mask", width, height, pixels=pixels),
            point_xy=_point(record.get("point"), f"{where}.point", scale),
            scribble_xy=_scribble(record.get("scribble"), f"{where}.scribble", scale),
            color=_text(record, "color", where, "") or None,
            texture=_text(record, "texture", where, "") or None,
        )
        instances.append(_with_mask_points(instance))
    return _layout(data, width, height, instances)


def _layout(data: Mapping[str, Any], width: int, height: int, instances: list[Instance]) -> Layout:
    return Layout(
        image_key="layout",
        dataset=DATASET,
        image_id=0,
        caption=_text(data, "caption", ""),
        source_width=width,
        source_height=height,
        instances=tuple(instances),
    )


# -- the published demo's form


def _from_demo(data: Mapping[str, Any]) -> Layout:
    """The published form. Unknown fields are passed over, as the published script does."""
    width, height = (_side(data, name, None) for name in ("width", "height"))
    instances = []
    for number, record in enumerate(_records(data, "annos")):
        where = f"annos.{number}"
        phrase = _text(record, "caption", where)
        mask = record.get("mask")
        instance = Instance(
            phrase=phrase,
            category=_text(record, "category_name", where, "") or phrase,
            category_id=0,
            annotation_id=number + 1,
            box_xyxy=_demo_box(record.get("bbox"), f"{where}.bbox", width, height),
            mask=None if mask == [] else _mask(mask, f"{where}.mask", width, height, pixels=True),
            point_xy=_point(record.get("point"), f"{where}.point", (width, height)),
            scribble_xy=_scribble(record.get("scribble") or None, f"{where}.scribble", (width, height)),
        )
        instances.append(_with_mask_points(instance))
    return _layout(data, width, height, instances)


def _demo_box(value: Any, where: str, width: int, height: int) -> tuple[float, float, float, float] | None:
    if value is None or value == []:
        return None
    x, y, w, h = _numbers(value, 4, where, "x, y, width, height in pixels")
    if w <= 0 or h <= 0:
        raise InputError(f"{where}: has no area; give x, y, width, height with sides above 0")
    # Published boxes may end a pixel outside; the part on the canvas is what can be drawn.
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x1 <= x0 or y1 <= y0:
        raise InputError(
            f"{where}: lies outside the {width}x{height} canvas; give x, y, width, height in pixels"
        )
    return x0 / width, y0 / height, x1 / width, y1 / height


# -- fields


def _with_mask_points(instance: Instance) -> Instance:
    """Adds the points that stand for a mask, drawn as for the benchmarks."""
    from instbench.layouts.locations import strict_mask_points

    if instance.mask is None:
        return instance
    points = strict_mask_points(decode(instance.mask), instance.annotation_id)
    return replace(instance, mask_points_xy=points)


def _records(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    records = data.get(name)
    if not isinstance(records, list):
        raise InputError(f"{name}: must be a list of objects, not {_kind(records)}")
    if len(records) > LIMITS.instances:
        raise InputError(f"{name}: {len(records)} entries, at most {LIMITS.instances} are read; drop some")
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InputError(f"{name}.{number}: must be an object, not {_kind(record)}")
    return records


def _known(record: Mapping[str, Any], fields: set[str], prefix: str) -> None:
    unknown = sorted(set(record) - fields)
    if unknown:
        raise InputError(f"{prefix}{_shown(unknown[0])}: unknown field; known: {', '.join(sorted(fields))}")


def _text(record: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = record.get(name, default)
    field = f"{where}.{name}" if where else name
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InputError(f"{field}: must be text, not {_kind(value)}")
    return _bounded(value, field)


def _bounded(text: str, field: str) -> str:
    if len(text) > LIMITS.text:
        raise InputError(f"{field}: {len(text)} characters, at most {LIMITS.text} are read; shorten it")
    if not text.isprintable() and "\0" in text:
        raise InputError(f"{field}: holds a zero character; remove it")
    return text


def _side(data: Mapping[str, Any], name: str, default: int | None) -> int:
    value = data.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 1 <= value <= LIMITS.side:
        raise InputError(f"{name}: {_shown(value)} must be a whole number of pixels from 1 to {LIMITS.side}")
    return value


def _numbers(value: Any, count: int, where: str, form: str) -> list[float]:
    if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
        raise InputError(f"{where}: {_shown(value)} must be {count} finite numbers: {form}")
    return [float(number) for number in value]


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _relative(value: float, side: int, where: str) -> float:
    share = value / side
    if not -_ROUNDING <= share <= 1.0 + _ROUNDING:
        raise InputError(f"{where}: {value:g} lies outside the canvas; keep it between 0 and {side}")
    return min(max(share, 0.0), 1.0)


def _box(value: Any, where: str, scale: tuple[int, int]) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    numbers = _numbers(value, 4, where, "x0, y0, x1, y1")
    x0, y0, x1, y1 = (_relative(number, scale[i % 2], where) for i, number in enumerate(numbers))
    return x0, y0, x1, y1


def _point(value: Any, where: str, scale: tuple[int, int]) -> PointXY | None:
    if value is None:
        return None
    x, y = _numbers(value, 2, where, "x, y")
    return _relative(x, scale[0], where), _relative(y, scale[1], where)


def _scribble(value: Any, where: str, scale: tuple[int, int]) -> tuple[PointXY, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 2 <= len(value) <= LIMITS.points:
        raise InputError(f"{where}: must be a list of 2 to {LIMITS.points} points [x, y]")
    points = (_point(one, f"{where}.{number}", scale) for number, one in enumerate(value))
    # `_point` is None for null alone, which is no point.
    found = tuple(point for point in points if point is not None)
    if len(found) != len(value):
        raise InputError(f"{where}: holds null; give points [x, y]")
    return found


def _mask(value: Any, where: str, width: int, height: int, *, pixels: bool) -> MaskRLE | None:
    if value is None:
        return None
    if isinstance(value, list):
        if any(isinstance(part, list) and len(part) > 2 * LIMITS.points for part in value):
            raise InputError(f"{where}: a polygon has more than {LIMITS.points} points; simplify it")
        if not pixels:
            value = [_scaled(part, width, height, f"{where}.{number}") for number, part in enumerate(value)]
    try:
        mask = from_coco_segmentation(value, height, width)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if area(mask) == 0:
        raise InputError(f"{where}: is empty; mark the object or leave the mask out")
    return mask


def _scaled(part: Any, width: int, height: int, where: str) -> list[float]:
    if not isinstance(part, list) or not all(map(_is_number, part)):
        raise InputError(f"{where}: must be a flat list of finite numbers x0, y0, x1, y1, ...")
    scale = np.resize(np.array([width, height], dtype=np.float64), len(part))
    scaled: list[float] = (np.array(part, dtype=np.float64) * scale).tolist()
    return scaled


# -- JSON


def _refuse_constant(name: str) -> Any:
    raise InputError(f"{name} is no JSON number; write a finite one")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{_shown(twice)}: stands twice in one object; keep one")
    return record


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for one in level
            if isinstance(one, list | dict)
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, list | dict)
        ]
        if not level:
            return False
    return True


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
