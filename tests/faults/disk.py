"""What a power cut leaves of a folder: the bytes and names that had been synced, and nothing that had not."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

__all__ = ["STATES", "WatchedDisk"]

STATES = ("synced", "names first", "torn")
"""How an unsynced write may come out: not at all; as a name without bytes; as a name with half of the bytes."""


class WatchedDisk:
    """Watches the syncs of this process below a folder, and builds the folder as it would be after a power cut.

    A file has the bytes, and a folder the names, of its last `os.fsync`; files and folders that were there at the
    start are taken to be on the disk. Bytes are bound to the file, not to its name, so a rename alone moves nothing.

    Args:
        top: The folder; it must exist.
        at_cut: Called after every sync and rename, each a moment at which the power may fail.
    """

    def __init__(self, top: Path, at_cut: Callable[[], None]) -> None:
        self.top = top
        self._at_cut = at_cut
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._held: list[int] = []  # open files keep their number: a later file must not inherit bytes
        self._fsync, self._replace = os.fsync, os.replace
        for folder, _, files in os.walk(top):
            for path in (Path(folder), *(Path(folder) / name for name in files)):
                descriptor = os.open(path, os.O_RDONLY)
                self._remember(descriptor)
                os.close(descriptor)

    def __enter__(self) -> WatchedDisk:
        os.fsync, os.replace = self._watched_fsync, self._watched_replace  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync, os.replace = self._fsync, self._replace
        for descriptor in self._held:
            os.close(descriptor)

    def _watched_fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._remember(descriptor)
        self._at_cut()

    def _watched_replace(self, source: Path, target: Path) -> None:
        self._replace(source, target)
        self._at_cut()

    def _remember(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            names = {}
            for name in os.listdir(descriptor):
                inner = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                names[name] = (inner.st_ino, stat.S_ISDIR(inner.st_mode))
            self._names[status.st_ino] = names
        else:
            self._bytes[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        self._held.append(os.dup(descriptor))

    def after_cut(self, target: Path, state: str) -> None:
        """Writes the folder as it would be if the power failed now.

        Args:
            target: The folder to write; it must not exist.
            state: One of `STATES`.
        """
        if state == "synced":
            self._build_synced(self.top.stat().st_ino, target)
        else:
            self._build_named(self.top, target, 0.5 if state == "torn" else 0.0)

    def _build_synced(self, number: int, target: Path) -> None:
        target.mkdir()
        for name, (inner, is_folder) in self._names.get(number, {}).items():
            if is_folder:
                self._build_synced(inner, target / name)
            else:
                (target / name).write_bytes(self._bytes.get(inner, b""))

    def _build_named(self, source: Path, target: Path, share: float) -> None:
        target.mkdir()
        for path in source.iterdir():
            if path.is_dir():
                self._build_named(path, target / path.name, share)
                continue
            there, safe = path.read_bytes(), self._bytes.get(path.stat().st_ino, b"")
            unsafe = there[len(safe) :] if there.startswith(safe) else there
            (target / path.name).write_bytes(safe + unsafe[: int(len(unsafe) * share)])
