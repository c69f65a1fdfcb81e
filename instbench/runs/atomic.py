"""Atomic files: a reader sees the old file or the whole new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instbench.plain_files import check_plain

__all__ = ["TEMPORARY_PREFIX", "atomic_path", "canonical_json", "sha256_bytes", "sha256_file", "write_bytes"]
__all__ += [
    "append_line",
    "finished",
    "make_folder",
    "remove_temporary",
    "sync_folder",
    "watching",
    "write_json",
]

TEMPORARY_PREFIX = ".tmp-"
_WATCHERS: list[Callable[[Path], None]] = []


@contextlib.contextmanager
def watching(watcher: Callable[[Path], None]) -> Iterator[None]:
    """Calls `watcher` with every file that is written or grows in the block, once it is whole and synced."""
    _WATCHERS.append(watcher)
    try:
        yield
    finally:
        _WATCHERS.remove(watcher)


def finished(path: Path) -> None:
    """Tells those who watch that a file is whole and synced."""
    for watcher in _WATCHERS:
        watcher(path)


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk: a power cut takes none of them, and brings no deleted one back."""
    with contextlib.suppress(OSError):  # some file systems have no folder sync
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, and puts their names on the disk; one that is there is left alone."""
    missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`.

    Args:
        path: The final file. Its folder must exist.

    Yields:
        The temporary path to write to. It is removed when the block raises.
    """
    if path.exists():
        check_plain(path)  # renaming would put a file in the place of a device such as /dev/null
    # A long name must not become too long by ours.
    name = path.name if len(os.fsencode(path.name)) < 200 else path.suffix
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{name}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - replaces an existing file on every platform
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    finished(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes indented, key-ordered JSON atomically; refuses NaN, which is not JSON."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Appends one line and syncs it; a line torn by a crash is closed first, and the reader's to skip."""
    with path.open("a+b") as stream:
        is_new = stream.tell() == 0
        if not is_new:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        sync_folder(path.parent)
    finished(path)


def remove_temporary(folder: Path) -> None:
    """Removes what an interrupted `atomic_path` left in a folder."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def canonical_json(value: Any) -> str:
    """Returns JSON that is the same for equal values: ordered keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def sha256_bytes(data: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    check_plain(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
