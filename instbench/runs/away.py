"""Images of a run that are at an address and not here: known by their hashes, and fetched when they are read."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from instbench.runs.atomic import append_line

__all__ = ["HASHES_NAME", "ImageHashes", "KnownImage", "Supplier", "supplier_of", "supplying"]

logger = logging.getLogger(__name__)

HASHES_NAME = "image_hashes.jsonl"
"""File of a run at an address: what is known of each of its images."""


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What makes it needless to fetch an image.

    Attributes:
        sha256: Of the PNG file, in hexadecimal.
        width: In pixels; the image was whole.
        height: In pixels.
    """

    sha256: str
    width: int
    height: int


class Supplier(Protocol):
    """Has the images that belong into a folder and are not there."""

    def away(self, folder: Path) -> dict[str, int]:
        """Returns names and bytes of the images that belong into a folder and are not there."""

    def known(self, path: Path) -> KnownImage | None:
        """What is known of an image that is not there, None if it must be fetched to know it."""

    def fetch(self, path: Path) -> bool:
        """Puts an image where it belongs; False if there is none."""

    def forget(self, folder: Path) -> None:
        """Deletes the images that belong into a folder and are not there."""


_SUPPLIERS: dict[Path, Supplier] = {}


@contextlib.contextmanager
def supplying(root: Path, supplier: Supplier) -> Iterator[None]:
    """Has a supplier provide the images below a folder for the time of a block."""
    _SUPPLIERS[root] = supplier
    try:
        yield
    finally:
        del _SUPPLIERS[root]


def supplier_of(path: Path) -> Supplier | None:
    """Returns who has what is missing at a path, None for folders that are the place itself."""
    if not _SUPPLIERS:
        return None
    return next((_SUPPLIERS[parent] for parent in path.parents if parent in _SUPPLIERS), None)


class ImageHashes:
    """The hashes of a run's images, each bound to the token of the file that was hashed.

    A file that has another token by now is another one, and not known.

    Args:
        path: The file ``image_hashes.jsonl``; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], KnownImage] = {}
        if not path.is_file():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                image = KnownImage(str(entry["sha256"]), int(entry["width"]), int(entry["height"]))
                if re.fullmatch("[0-9a-f]{64}", image.sha256):
                    self._known[str(entry["image"]), str(entry["token"])] = image
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                logger.debug("%s: skipped a torn line", path)

    def find(self, name: str, token: str) -> KnownImage | None:
        """Returns what is known of the file of this name and token."""
        return self._known.get((name, token))

    def add(self, name: str, token: str, image: KnownImage) -> None:
        """Notes an image, unless it is known."""
        if self.find(name, token) != image:
            self._known[name, token] = image
            append_line(self._path, json.dumps({"image": name, "token": token, **asdict(image)}))
