"""Thumbnails: inside the page while they are small together, beside it beyond that."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from instbench.errors import InputError
from instbench.runs.atomic import TEMPORARY_PREFIX
from instbench.runs.images import UNREADABLE, ImageStore
from instbench.runs.store import RunFolder

__all__ = ["EMBEDDED_LIMIT", "Pictures", "make_pictures"]

logger = logging.getLogger(__name__)

EMBEDDED_LIMIT = 20_000_000
"""Bytes of thumbnails that go into the page itself."""

_OURS = re.compile(r"[0-9]+-[a-z0-9][a-z0-9._-]*\.webp")
_SIDE, _SMALL_RUN, _LARGE_SIDE = 256, 64, 512
_QUALITY = 82

Pictures = list[dict[str, str]]


def make_pictures(
    runs: Sequence[tuple[RunFolder, Sequence[str]]], output: Path, limit: int = EMBEDDED_LIMIT
) -> tuple[Pictures, bool]:
    """Makes the thumbnails of a report.

    Args:
        runs: Run folders with the keys of their images.
        output: The page; files go into ``<its name without ending>_files`` beside it.
        limit: Bytes of thumbnails up to which they are embedded.

    Returns:
        Addresses by image key, per run, and whether they lie beside the page. Missing and damaged pictures have none.

    Raises:
        InputError: If the folder beside the page holds anything but thumbnails.
    """
    folder = output.with_name(f"{output.stem}_files")
    _check_ours(folder)
    side = _LARGE_SIDE if sum(len(keys) for _, keys in runs) <= _SMALL_RUN else _SIDE
    embedded: Pictures = [{} for _ in runs]
    total = 0
    staging = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{folder.name}")
    names: Pictures = [{} for _ in runs]
    try:
        for number, key, data in _thumbnails(runs, side):
            total += len(data)
            name = f"{number}-{key}.webp"
            names[number][key] = f"{folder.name}/{name}"
            if total <= limit:
                embedded[number][key] = "data:image/webp;base64," + base64.b64encode(data).decode()
                continue
            if not staging.exists():
                staging.mkdir()
                _write_all(embedded, staging)
            (staging / name).write_bytes(data)
        _remove(folder)
        if total <= limit:
            return embedded, False
        os.replace(staging, folder)  # noqa: PTH105 - replaces on every platform
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info("%s: %.0f MB of thumbnails beside the page", folder, total / 1e6)
    return _quoted(names), True


def _quoted(names: Pictures) -> Pictures:
    from urllib.parse import quote

    return [{key: quote(name) for key, name in one.items()} for one in names]


def _write_all(embedded: Pictures, staging: Path) -> None:
    for number, pictures in enumerate(embedded):
        for key, address in pictures.items():
            data = base64.b64decode(address.split(",", 1)[1])
            (staging / f"{number}-{key}.webp").write_bytes(data)


def _check_ours(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: is no folder, but the report needs one there; choose another -o")
    strangers = [path.name for path in folder.glob("*") if not _OURS.fullmatch(path.name)]
    if strangers:
        raise InputError(
            f"{folder}: holds {sorted(strangers)[0]!r}, which is no thumbnail; choose another -o"
        )


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _thumbnails(
    runs: Sequence[tuple[RunFolder, Sequence[str]]], side: int
) -> Iterator[tuple[int, str, bytes]]:
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for number, (folder, keys) in enumerate(runs):
            pictures = folder.pictures
            found = pool.map(lambda key, store=pictures: _thumbnail(store, key, side), keys)
            for key, data in zip(keys, found, strict=True):
                if data is not None:
                    yield number, key, data


def _thumbnail(store: ImageStore, key: str, side: int) -> bytes | None:
    try:
        picture = store.open(key)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        logger.warning("%s: unreadable (%s); left out of the report", store.place(key), error)
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=_QUALITY, method=2)
    return stream.getvalue()
