"""Images in uncompressed tar archives of bounded size: few files for large runs, still resumable image by image.

``images/images-00000.tar`` is filled first, then ``images-00001.tar`` and so on. Each image is appended and synced by
itself, and two blocks of zeros follow it, so that every archive is a whole tar file at any time between two writes. A
crash within a write leaves a torn end, which is cut off before the next write. Any tar program reads the archives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from instbench.errors import InputError
from instbench.runs.atomic import finished, remove_temporary, sync_folder
from instbench.runs.images import ImageStore, file_name

__all__ = ["ARCHIVE_NAME", "MAX_IMAGE_BYTES", "SHARD_BYTES", "SHARD_IMAGES", "ImageArchives"]

logger = logging.getLogger(__name__)

ARCHIVE_NAME = re.compile(r"images-([0-9]{5,9})\.tar")
SHARD_IMAGES = 1000
"""Images per archive."""
SHARD_BYTES = 2**30
"""Bytes after which the next archive begins."""
MAX_IMAGE_BYTES = 2**28
"""A larger image is refused."""

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_MAX_ARCHIVE = 4 * SHARD_BYTES


@dataclass(frozen=True, slots=True)
class _Place:
    shard: int
    offset: int
    size: int


@dataclass(slots=True)
class _Index:
    """What a scan found.

    Attributes:
        places: Where each image is; of a key that is there twice, the last.
        shard: Number of the last archive, -1 if there is none.
        images: Records in it.
        end: Where its last whole record ends.
        size: Its size in bytes when it was scanned.
        last: Key of its last record.
    """

    places: dict[str, _Place] = field(default_factory=dict)
    shard: int = -1
    images: int = 0
    end: int = 0
    size: int = 0
    last: str | None = None


class ImageArchives(ImageStore):
    """Images in tar archives.

    Only plain files named ``<image key>.png`` belong into the archives; anything else is refused. Nothing is ever
    extracted to a path.

    Args:
        folder: The folder ``images`` of the run.

    Attributes:
        shard_images: Images per archive.
        shard_bytes: Bytes after which the next archive begins.
    """

    kind = "archives"
    shard_images = SHARD_IMAGES
    shard_bytes = SHARD_BYTES

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._scanned: _Index | None = None
        self._writable = False

    def prepare(self) -> None:
        """Cuts off what an interrupted write left at the end of the last archive."""
        self._writable = False
        if not self.folder.is_dir():
            return
        remove_temporary(self.folder)
        self._scanned = None
        index = self._index
        if index.shard < 0:
            return
        path = self._path(index.shard)
        end = index.end
        # A header may come to the disk before the image behind it.
        if index.last is not None and self._whole_size(index.last) is None:
            end = index.places[index.last].offset - _BLOCK
        if end != index.end or index.size != end + len(_END) or not _ends_in_zeros(path):
            if index.size > end:
                logger.info("%s: an unfinished image at its end was cut off", path)
            with path.open("r+b") as stream:
                stream.truncate(end)
                stream.truncate(end + len(_END))
                os.fsync(stream.fileno())
            self._scanned = None
        self._writable = True

    def keys(self) -> list[str]:
        """Returns the keys of the stored images, sorted."""
        return sorted(self._index.places)

    def read(self, image_key: str) -> bytes:
        """Returns the bytes of the PNG file."""
        name = file_name(image_key)
        place = self._find(image_key)
        if place is None:
            raise FileNotFoundError(f"{self.folder}: no archive holds {name}")
        with self._path(place.shard).open("rb") as stream:
            stream.seek(place.offset)
            return stream.read(place.size)

    def write(self, image_key: str, data: bytes) -> None:
        """Appends the image to the last archive, or begins the next one."""
        record = _record(file_name(image_key), data)
        if not self._writable:
            self.prepare()
            self._writable = True
        index = self._index
        full = index.images >= self.shard_images or index.end + len(record) > self.shard_bytes
        if index.shard < 0 or (full and index.images):
            index.shard, index.images, index.end, index.last = index.shard + 1, 0, 0, None
        path = self._path(index.shard)
        try:
            _append(path, index.end, record)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        index.places[image_key] = _Place(index.shard, index.end + _BLOCK, len(data))
        index.images += 1
        index.end += len(record)
        index.size = index.end + len(_END)
        index.last = image_key
        finished(path)

    def place(self, image_key: str) -> str:
        """Returns the archive and the name in it."""
        found = self._find(image_key)
        where = self.folder if found is None else self._path(found.shard)
        return f"{where}: {file_name(image_key)}"

    # -- the index

    def _path(self, shard: int) -> Path:
        return self.folder / f"images-{shard:05d}.tar"

    @property
    def _index(self) -> _Index:
        if self._scanned is None:
            self._scanned = self._scan(_Index())
        return self._scanned

    def _find(self, image_key: str) -> _Place | None:
        index = self._index
        if image_key not in index.places and not self._writable:
            # Another process may have appended since; whoever writes here knows all that there is.
            grown = index.shard >= 0 and _size(self._path(index.shard)) != index.size
            if grown or self._path(index.shard + 1).exists():
                index = self._scanned = self._scan(index)
        return index.places.get(image_key)

    def _scan(self, known: _Index) -> _Index:
        """Reads the headers behind what is known already."""
        found = _Index(dict(known.places), known.shard, known.images, known.end, known.size, known.last)
        for shard in self._shards():
            if shard < known.shard:
                continue
            if shard > found.shard:
                found.shard, found.images, found.end, found.last = shard, 0, 0, None
            path = self._path(shard)
            with _open(path) as stream:
                found.size = stream.seek(0, os.SEEK_END)
                if found.size > _MAX_ARCHIVE:
                    raise InputError(f"{path}: {found.size} bytes are too many for an archive of images")
                for key, offset, size in _members(stream, path, found.end, found.size):
                    found.places[key] = _Place(shard, offset, size)
                    found.images += 1
                    found.end = offset + _padded(size)
                    found.last = key
        return found

    def _shards(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (ARCHIVE_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        numbers = {int(match[1]) for match in matches if match is not None}
        return sorted(number for number in numbers if self._path(number).exists())


def _open(path: Path) -> BinaryIO:
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{path}: is no plain file; put the archive itself there")
    return path.open("rb")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _record(name: str, data: bytes) -> bytes:
    """An entry of a tar file; equal images give equal entries."""
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(f"{name}: {len(data)} bytes are too many for an image")
    info = tarfile.TarInfo(name)
    info.size = len(data)
    try:
        header = info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise InputError(f"{name}: {error}; use --image-store files") from None
    return header + data + bytes(_padded(len(data)) - len(data))


def _append(path: Path, end: int, record: bytes) -> None:
    """Writes a record and the end of the archive, synced; what cannot be written whole is taken back."""
    # Unbuffered: a buffer would be written again on closing after an error.
    with path.open("r+b" if path.exists() else "x+b", buffering=0) as stream:
        try:
            stream.seek(end)
            left = memoryview(record + _END)
            while left:
                left = left[stream.write(left) :]
            stream.truncate()
            os.fsync(stream.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                stream.truncate(end)
            raise
    if end == 0:
        sync_folder(path.parent)


def _ends_in_zeros(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-len(_END), os.SEEK_END)
        return stream.read() == _END


def _members(stream: BinaryIO, path: Path, start: int, total: int) -> Iterator[tuple[str, int, int]]:
    """Key, offset and size of each whole image from a position on.

    Behind a damaged header the next good one is looked for, so that one bad block does not lose all that follow.
    """
    position, damaged = start, False
    while position + _BLOCK <= total:
        stream.seek(position)
        member = _member(stream.read(_BLOCK), path, strict=not damaged)
        if member is None or position + _BLOCK + _padded(member[1]) > total:
            position, damaged = position + _BLOCK, True
            continue
        key, size = member
        yield key, position + _BLOCK, size
        position, damaged = position + _BLOCK + _padded(size), False


def _member(header: bytes, path: Path, *, strict: bool) -> tuple[str, int] | None:
    """Key and size in a header, or None if it is none; whole headers of anything else are refused if `strict`."""
    if header[257:262] != b"ustar":
        return None
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    key = info.name.removesuffix(".png")
    try:
        ours = info.name == file_name(key)
    except InputError:
        ours = False
    if ours and info.type == tarfile.REGTYPE and 0 < info.size <= MAX_IMAGE_BYTES:
        return key, info.size
    if strict:
        raise InputError(
            f"{path}: {info.name[:80]!r} is no image of a run; only plain files <image key>.png belong there"
        )
    return None
