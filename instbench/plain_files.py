"""Reads files that others made: no device or pipe that never ends, nothing larger than makes sense."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

__all__ = ["check_plain", "read_file"]

_SETTINGS = 2**26


def check_plain(path: Path, most: int | None = None) -> None:
    """Checks that a file can be read to its end; a pipe would wait for ever, a device give bytes for ever.

    Args:
        path: The file.
        most: Bytes that it may have; None for any number.

    Raises:
        OSError: If it is missing, no plain file, or too large.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a pipe or a device, not a file", str(path))
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"has {status.st_size} bytes, more than {most}", str(path))


def read_file(path: Path, most: int | None = _SETTINGS) -> bytes:
    """Returns the bytes of a plain file; see `check_plain`.

    Args:
        path: The file.
        most: Bytes that it may have; the default is more than any file of settings has.

    Raises:
        OSError: If it is missing, no plain file, too large, or cannot be read.
    """
    check_plain(path, most)
    return path.read_bytes()
