"""Layouts as JSON: one layout a line, exact round trip, strict reading.

A line holds every field that is not at its default, after ``schema_version``. Points are lists
``[x, y]``; floats are written with as many digits as it takes to read the same number back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.layouts.rle import check
from instbench.layouts.types import Condition, Instance, Layout, MaskRLE
from instbench.plain_files import check_plain

__all__ = ["SCHEMA_VERSION", "dumps", "layout_from_json", "layout_to_json", "read_jsonl", "write_jsonl"]

SCHEMA_VERSION = 1

_KEY = re.compile(r"[a-z0-9._-]+")
_INSTANCE_DEFAULTS = {f.name: f.default for f in fields(Instance)}
_LAYOUT_FIELDS = {f.name for f in fields(Layout)}
_TEXT, _OPTIONAL_TEXT = ("category", "phrase"), ("color", "texture", "ignore_reason", "frequency")
_CATEGORY_LISTS = ("absent_category_ids", "partial_category_ids")


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """The JSON-able form of a layout; fields in a fixed order, so equal layouts give equal text."""
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "image_key": layout.image_key,
        "dataset": layout.dataset,
        "image_id": layout.image_id,
        "caption": layout.caption,
        "source_width": layout.source_width,
        "source_height": layout.source_height,
    }
    if layout.source_path is not None:
        record["source_path"] = layout.source_path
    for name in _CATEGORY_LISTS:
        if getattr(layout, name):
            record[name] = list(getattr(layout, name))
    record["instances"] = [_instance_to_json(instance) for instance in layout.instances]
    return record


def layout_from_json(record: Any) -> Layout:
    """Reads a layout back.

    Args:
        record: What `layout_to_json` made.

    Returns:
        An equal layout.

    Raises:
        InputError: If a field is missing, unknown, of the wrong kind or out of range; names the field.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"a layout must be a JSON object, not {type(record).__name__}")
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"schema_version: {version!r} is not supported (this version reads {SCHEMA_VERSION})"
        )
    unknown = sorted(set(record) - _LAYOUT_FIELDS - {"schema_version"})
    if unknown:
        raise InputError(f"{unknown[0]}: unknown field of a layout")
    key = _text(record, "image_key")
    if not _KEY.fullmatch(key) or set(key) <= {"."}:
        raise InputError(f"image_key: {key!r} must consist of a-z, 0-9, '.', '_' and '-'")
    instances = record.get("instances")
    if not isinstance(instances, list):
        raise InputError("instances: must be a list")
    path = record.get("source_path")
    if path is not None and not isinstance(path, str):
        raise InputError("source_path: must be text")
    return Layout(
        image_key=key,
        dataset=_text(record, "dataset"),
        image_id=_integer(record, "image_id", 0),
        caption=_text(record, "caption"),
        source_width=_integer(record, "source_width", 1),
        source_height=_integer(record, "source_height", 1),
        instances=tuple(_instance_from_json(item, f"instances[{i}]") for i, item in enumerate(instances)),
        source_path=path,
        absent_category_ids=_ids(record, "absent_category_ids"),
        partial_category_ids=_ids(record, "partial_category_ids"),
    )


def dumps(layout: Layout) -> str:
    """One line of compact JSON (without the line break)."""
    return json.dumps(layout_to_json(layout), separators=(",", ":"), allow_nan=False)


def write_jsonl(layouts: Iterable[Layout], path: Path) -> None:
    """Writes layouts, one a line; the file appears whole or not at all.

    Args:
        layouts: The layouts.
        path: Target file; its folder is made if missing.

    Raises:
        InputError: If a coordinate is NaN or infinite.
        OSError: If the file cannot be written.
    """
    from instbench.runs.atomic import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as handle:
        for layout in layouts:
            try:
                handle.write(dumps(layout) + "\n")
            except ValueError as error:
                raise InputError(f"layout {layout.image_key}: {error}") from None


def read_jsonl(path: Path) -> list[Layout]:
    """Reads layouts; empty lines are not allowed.

    Args:
        path: The file.

    Returns:
        The layouts in file order.

    Raises:
        InputError: At the first bad line; names file, line and field.
    """
    layouts: list[Layout] = []
    keys: set[str] = set()
    try:
        check_plain(path)
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                layout = _parse_line(line, f"{path}: line {number}")
                if layout.image_key in keys:
                    raise InputError(f"{path}: line {number}: image_key: {layout.image_key!r} occurs twice")
                keys.add(layout.image_key)
                layouts.append(layout)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return layouts


def _parse_line(line: str, where: str) -> Layout:
    try:
        return layout_from_json(json.loads(line))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: no valid JSON at column {error.colno} ({error.msg}); the file is damaged"
        ) from None
    except RecursionError:
        raise InputError(f"{where}: JSON nested too deeply") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{where}: no usable JSON ({error})") from None


def _instance_to_json(instance: Instance) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, default in _INSTANCE_DEFAULTS.items():
        value = getattr(instance, name)
        if value is None or (default is not MISSING and value == default):
            continue
        if isinstance(value, MaskRLE):
            value = {"size": [value.height, value.width], "counts": value.counts}
        record[name] = value
    return record


def _instance_from_json(record: Any, where: str) -> Instance:
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: must be an object")
    unknown = sorted(set(record) - set(_INSTANCE_DEFAULTS))
    if unknown:
        raise InputError(f"{where}.{unknown[0]}: unknown field of an instance")
    try:
        for name in _OPTIONAL_TEXT:
            if record.get(name) is not None:
                _text(record, name)
        area = record.get("area")
        if area is not None and not _is_number(area):
            raise InputError("area: must be a finite number")
        return Instance(
            phrase=_text(record, "phrase"),
            category=_text(record, "category"),
            category_id=_integer(record, "category_id", 0),
            annotation_id=_integer(record, "annotation_id", 0),
            box_xyxy=_box(record.get("box_xyxy")),
            mask=_mask(record.get("mask")),
            point_xy=None if record.get("point_xy") is None else _point(record["point_xy"], "point_xy"),
            scribble_xy=_points(record, "scribble_xy"),
            mask_points_xy=_points(record, "mask_points_xy"),
            color=record.get("color"),
            texture=record.get("texture"),
            is_crowd=_flag(record, "is_crowd"),
            is_ignored=_flag(record, "is_ignored"),
            ignore_reason=record.get("ignore_reason"),
            area=area,
            frequency=record.get("frequency"),
            condition=_condition(record.get("condition")),
        )
    except InputError as error:
        raise InputError(f"{where}.{error}") from None


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise InputError(f"{name}: must be text, not {value!r}")
    return value


def _integer(record: Mapping[str, Any], name: str, minimum: int) -> int:
    value = record.get(name)
    if type(value) is not int or value < minimum:
        raise InputError(f"{name}: must be an integer >= {minimum}, not {value!r}")
    return value


def _ids(record: Mapping[str, Any], name: str) -> tuple[int, ...]:
    values = record.get(name, [])
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise InputError(f"{name}: must be a list of ids, not {values!r}")
    return tuple(values)


def _flag(record: Mapping[str, Any], name: str) -> bool:
    value = record.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"{name}: must be true or false, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_is_number, value)):
        raise InputError("box_xyxy: must be four finite numbers x0, y0, x1, y1")
    x0, y0, x1, y1 = value
    return x0, y0, x1, y1


def _point(value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        raise InputError(f"{name}: must be two finite numbers x, y")
    return value[0], value[1]


def _points(record: Mapping[str, Any], name: str) -> tuple[tuple[float, float], ...] | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise InputError(f"{name}: must be a list of points")
    return tuple(_point(item, f"{name}[{position}]") for position, item in enumerate(value))


def _condition(value: Any) -> Condition | None:
    if value is None:
        return None
    try:
        return Condition(value)
    except ValueError:
        raise InputError(f"condition: {value!r} must be one of {', '.join(Condition)}") from None


def _mask(value: Any) -> MaskRLE | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError("mask: must be an object with size and counts")
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise InputError("mask.size: must be [height, width]")
    if not isinstance(counts, str):
        raise InputError("mask.counts: must be text")
    mask = MaskRLE(height=size[0], width=size[1], counts=counts)
    check(mask)
    return mask
