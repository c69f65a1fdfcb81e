"""Checks of image files against the annotations: there, readable, of the annotated size."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instbench.datasets.lvis import image_file_name, is_lvis
from instbench.datasets.problems import Problem, error, record_name, warning
from instbench.datasets.validation import has_size
from instbench.errors import InputError
from instbench.layouts.rle import MAX_SIDE
from instbench.progress import track

__all__ = ["check_pictures"]

_PROGRESS_FROM = 500


def check_pictures(data: Mapping[str, Any], folder: Path) -> list[Problem]:
    """Opens every image of an instances file.

    A missing image is a warning, since only some uses need the images; an image that is damaged, of another
    size than annotated or too large is an error. Sizes are read before anything is decoded.

    Args:
        data: Content of the file.
        folder: Folder against which the names are meant.

    Returns:
        All problems in file order.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    images = data.get("images") if isinstance(data, Mapping) else None
    records = images if isinstance(images, list) else []
    lvis = is_lvis(data)
    base = folder.resolve()
    problems: list[Problem] = []
    shown = track(records, description="images") if len(records) >= _PROGRESS_FROM else records
    for position, record in enumerate(shown):
        name = image_file_name(record, lvis=lvis) if isinstance(record, dict) else None
        if name is None:
            continue  # the check of the annotations says so
        where = f"{record_name('image', record, position)}: file_name"
        path = folder / name
        if not path.is_file():
            problems.append(warning(where, f"{name} is not there; the ceiling and FID need it"))
        elif not path.resolve().is_relative_to(base):
            problems.append(error(where, f"{name} leads out of the folder; remove the link"))
        else:
            reason = _damage(path, record)
            if reason is not None:
                problems.append(error(where, f"{name} {reason}"))
    return problems


def _damage(path: Path, record: Mapping[str, Any]) -> str | None:
    from PIL import Image

    from instbench.generators.pictures import FORMATS, MAX_PIXELS

    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                return f"is {width}x{height}; at most {MAX_PIXELS} pixels are read"
            if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
                return f"is {width}x{height}; at most {MAX_SIDE} pixels a side are read"
            if has_size(record) and (width, height) != (record["width"], record["height"]):
                return f"is {width}x{height}, but the annotations say {record['width']}x{record['height']}"
            picture.load()
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as reason:
        return f"cannot be read as an image ({' '.join(str(reason).split())}); replace the file"
    return None
