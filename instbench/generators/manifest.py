"""What a folder of ready images holds, compared with what a benchmark asks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instbench.errors import InputError
from instbench.generators.pictures import open_picture, to_canvas
from instbench.layouts.types import Layout
from instbench.progress import track
from instbench.runs.archives import ARCHIVE_NAME
from instbench.runs.atomic import sha256_file

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "Manifest", "read_manifest", "thumbnail"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_THUMBNAIL = 32


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A readable image of the folder.

    Attributes:
        path: The file.
        size: Width and height in pixels.
        sha256: Hash of its bytes.
        thumbnail: See `thumbnail`.
    """

    path: Path
    size: tuple[int, int]
    sha256: str
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The outcome of the comparison.

    Attributes:
        folder: The folder.
        canvas_size: Side of the benchmark's canvas in pixels.
        files: The image of each layout by image key, wrong sizes included.
        missing: Keys of the layouts without a readable image.
        extra: Names of images that no layout asks for.
        unreadable: Why files cannot be read, by name.
        wrong_size: Width and height of images of another size than the canvas, by name.
        ambiguous: What is unclear about files, by their names.
    """

    folder: Path
    canvas_size: int
    files: Mapping[str, ImageFile]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unreadable: Mapping[str, str]
    wrong_size: Mapping[str, tuple[int, int]]
    ambiguous: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Everything that does not fit, one line each."""
        for key in self.missing:
            yield f"missing     {key}.png"
        for name, reason in self.unreadable.items():
            yield f"unreadable  {name}: {reason}"
        for name, reason in self.ambiguous.items():
            yield f"ambiguous   {name}: {reason}"
        for name, (width, height) in self.wrong_size.items():
            yield f"wrong size  {name}: {width}x{height}, asked {self.canvas_size}x{self.canvas_size}"
        for name in self.extra:
            yield f"extra       {name}"

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values, for ``run.json``."""
        return {
            "folder": str(self.folder),
            "images": len(self.files),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "unreadable": dict(self.unreadable),
            "ambiguous": dict(self.ambiguous),
            "wrong_size": {name: list(size) for name, size in self.wrong_size.items()},
        }


def thumbnail(picture: Image.Image, canvas_size: int) -> NDArray[np.uint8]:
    """The picture on the canvas, averaged down to uint8 [32, 32, 3]: alike pictures have alike thumbnails."""
    small = to_canvas(picture, canvas_size).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def read_manifest(
    folder: Path, layouts: Sequence[Layout], canvas_size: int, names: Mapping[int, str] | None = None
) -> Manifest:
    """Compares a folder with layouts; every image is decoded once.

    A file answers a layout if its name without ending is the image key, the image id with or without leading
    zeros, or the name of the source image. Names out of data are only compared with the listing of the folder;
    none becomes a path.

    Args:
        folder: The folder; files in folders below it do not count.
        layouts: What is asked for.
        canvas_size: Side of the canvas in pixels.
        names: File names of the source images by image id, where known.

    Returns:
        The comparison.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """
    listing = list_images(folder)
    owners = _owners(layouts, names or {})
    answers: dict[str, list[Path]] = defaultdict(list)
    extra: list[str] = []
    ambiguous: dict[str, str] = {}
    for path in listing:
        keys: set[str] = owners.get(_stem(path.name), set())
        if len(keys) > 1:
            ambiguous[path.name] = f"answers {' and '.join(sorted(keys))}; name it <image key>.png"
        elif keys:
            answers[next(iter(keys))].append(path)
        else:
            extra.append(path.name)
    files: dict[str, ImageFile] = {}
    unreadable: dict[str, str] = {}
    for layout in track(layouts, description="check images"):
        paths = answers.get(layout.image_key, [])
        if len(paths) > 1:
            ambiguous[", ".join(path.name for path in paths)] = f"all answer {layout.image_key}; keep one"
        elif paths:
            try:
                picture = open_picture(paths[0])
            except InputError as error:
                unreadable[paths[0].name] = _reason(error, paths[0])
                continue
            files[layout.image_key] = ImageFile(
                paths[0], picture.size, sha256_file(paths[0]), thumbnail(picture, canvas_size)
            )
    wrong = {one.path.name: one.size for one in files.values() if one.size != (canvas_size, canvas_size)}
    missing = tuple(layout.image_key for layout in layouts if layout.image_key not in files)
    return Manifest(folder, canvas_size, files, missing, tuple(extra), unreadable, wrong, ambiguous)


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted; links count, also broken ones.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of images")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or path.is_symlink())
    ]
    if not found and any(ARCHIVE_NAME.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(
            f"{folder}: holds archives of images; unpack them elsewhere (tar -xf) and give that folder, or give the "
            "run folder without --benchmark"
        )
    if not found:
        raise InputError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); give a folder of images")
    return found


def _owners(layouts: Sequence[Layout], names: Mapping[int, str]) -> dict[str, set[str]]:
    """Image keys by the names that answer them."""
    owners: dict[str, set[str]] = defaultdict(set)
    for layout in layouts:
        owners[_stem(f"{layout.image_key}.png")].add(layout.image_key)
        owners[_number(str(layout.image_id))].add(layout.image_key)
        if layout.image_id in names:
            owners[_stem(PurePosixPath(names[layout.image_id]).name)].add(layout.image_key)
    return owners


def _stem(name: str) -> str:
    return _number(PurePosixPath(name).stem)


def _number(stem: str) -> str:
    """Numbers without leading zeros, so that 139 and 000000000139 are the same name."""
    return stem.lstrip("0") or "0" if stem.isascii() and stem.isdigit() else stem


def _reason(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ").rpartition("; ")[0]
