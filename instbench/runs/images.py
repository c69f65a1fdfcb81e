"""The images of a run: one interface over the two ways to keep them."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from PIL import Image, UnidentifiedImageError

from instbench.defaults import IMAGE_STORES, StoreKind
from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.runs.atomic import remove_temporary, sha256_bytes, write_bytes
from instbench.runs.away import KnownImage, supplier_of

__all__ = ["UNREADABLE", "ImageFiles", "ImageStore", "StoreKind", "check_store", "file_name", "whole_size"]

_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

_MAX_PIXELS = 2**26
_MAX_BYTES = 2**30
UNREADABLE = (OSError, SyntaxError, UnidentifiedImageError, ValueError, Image.DecompressionBombError)
"""What reading a damaged PNG, or one that would unfold without end, raises."""

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")


def file_name(image_key: str) -> str:
    """Returns the file name of an image; the key must be one of ours.

    Raises:
        InputError: If the key could lead out of a folder.
    """
    if not _KEY.fullmatch(image_key) or ".." in image_key:
        raise InputError(f"image key {image_key!r}: must be made of a-z, 0-9, dot, dash and underscore")
    return f"{image_key}.png"


def check_store(kind: str) -> StoreKind:
    """Returns the kind of store that a text names.

    Raises:
        InputError: If there is no such kind.
    """
    for known in IMAGE_STORES:
        if kind == known:
            return known
    raise InputError(f"--image-store {kind}: give {' or '.join(IMAGE_STORES)}")


def whole_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file whose every byte is there, by its check sums; else None."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
    except UNREADABLE:
        return None
    return image.size if data.endswith(_PNG_END) else None


class ImageStore(ABC):
    """The PNG files of one run, by image key, wherever they are.

    Reading needs no lock. Who calls `prepare` or `write` must hold the run folder.

    Args:
        folder: The folder ``images`` of the run.
    """

    kind: ClassVar[StoreKind]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def prepare(self) -> None:
        """Removes what an interrupted write left."""

    @abstractmethod
    def keys(self) -> list[str]:
        """Returns the keys of the stored images, sorted; whether they are whole is for `has` to say."""

    @abstractmethod
    def read(self, image_key: str) -> bytes:
        """Returns the bytes of the PNG file.

        Raises:
            FileNotFoundError: If there is no such image.
        """

    @abstractmethod
    def write(self, image_key: str, data: bytes) -> None:
        """Stores a PNG file; when this returns it is whole and synced, whatever happens afterwards.

        Raises:
            OSError: If the disk is full or the folder cannot be written; nothing of the image is left then.
        """

    @abstractmethod
    def place(self, image_key: str) -> str:
        """Says where an image is, for messages."""

    def has(self, image_key: str, size: int) -> bool:
        """Returns True if the image is there, whole, and of the canvas size."""
        return self._whole_size(image_key) == (size, size)

    def _whole_size(self, image_key: str) -> tuple[int, int] | None:
        """Width and height of an image if it is there and whole, else None."""
        try:
            data = self.read(image_key)
        except OSError:
            return None
        return whole_size(data)

    def size_in_bytes(self) -> int:
        """Returns the bytes of all images, with what surrounds them."""
        return sum(path.stat().st_size for path in self.folder.iterdir()) if self.folder.is_dir() else 0

    def open(self, image_key: str) -> Image.Image:
        """Returns the decoded image in RGB.

        Raises:
            FileNotFoundError: If there is no such image.
            OSError, SyntaxError, ValueError: If it is damaged or too large, see `UNREADABLE`.
        """
        with Image.open(io.BytesIO(self.read(image_key)), formats=["PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            return image.convert("RGB")

    def sha256(self, image_key: str) -> str:
        """Returns the SHA-256 of the PNG file in hexadecimal.

        Raises:
            FileNotFoundError: If there is no such image.
        """
        return sha256_bytes(self.read(image_key))


class ImageFiles(ImageStore):
    """One file per image, ``<image key>.png``; those at an address are fetched when they are read."""

    kind = "files"

    def prepare(self) -> None:
        """Removes temporary files."""
        remove_temporary(self.folder)

    def keys(self) -> list[str]:
        """Returns the keys of the stored images, sorted."""
        names = set(self._away())
        if self.folder.is_dir():
            names |= {path.name for path in self.folder.iterdir() if path.is_file()}
        return sorted(
            name.removesuffix(".png")
            for name in names
            if name.endswith(".png") and _KEY.fullmatch(name.removesuffix(".png"))
        )

    def read(self, image_key: str) -> bytes:
        """Returns the bytes of the PNG file."""
        path = self._path(image_key)
        try:
            return read_file(path, _MAX_BYTES)
        except FileNotFoundError:
            supplier = supplier_of(path)
            if supplier is None or not supplier.fetch(path):
                raise
            return read_file(path, _MAX_BYTES)

    def sha256(self, image_key: str) -> str:
        """Returns the SHA-256 of the PNG file in hexadecimal."""
        known = self._known(image_key)
        return super().sha256(image_key) if known is None else known.sha256

    def size_in_bytes(self) -> int:
        """Returns the bytes of all images."""
        return super().size_in_bytes() + sum(self._away().values())

    def _whole_size(self, image_key: str) -> tuple[int, int] | None:
        known = self._known(image_key)
        return super()._whole_size(image_key) if known is None else (known.width, known.height)

    def _away(self) -> dict[str, int]:
        supplier = supplier_of(self.folder)
        return {} if supplier is None else supplier.away(self.folder)

    def _known(self, image_key: str) -> KnownImage | None:
        path = self._path(image_key)
        supplier = supplier_of(path)
        return None if supplier is None else supplier.known(path)

    def write(self, image_key: str, data: bytes) -> None:
        """Writes the file atomically."""
        write_bytes(self._path(image_key), data)

    def place(self, image_key: str) -> str:
        """Returns the path."""
        return str(self._path(image_key))

    def _path(self, image_key: str) -> Path:
        return self.folder / file_name(image_key)
