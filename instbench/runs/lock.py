"""One process per run folder: a lock file that names its owner and can be told stale."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from instbench.errors import InputError
from instbench.plain_files import read_file

__all__ = ["LOCK_NAME", "LockOwner", "RunLock", "read_owner"]

LOCK_NAME = ".lock"


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def _process_space() -> str:
    """Which processes this one can see: containers of one host may have the same host name and process ids."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Start time of a process in clock ticks: tells a process from a later one with the same id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds a run folder.

    Attributes:
        pid: Process id.
        host: Host name.
        boot_id: Boot of the host, empty where the system does not tell.
        process_start: Start of the process in clock ticks, empty where the system does not tell.
        since: ISO time in UTC.
        space: Which processes it can see (its container), empty where the system does not tell.
    """

    pid: int
    host: str
    boot_id: str
    process_start: str
    since: str
    space: str = ""

    @classmethod
    def current(cls) -> LockOwner:
        """Returns this process."""
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(pid, socket.gethostname(), _boot_id(), _process_start(pid), since, _process_space())

    def is_stale(self) -> bool:
        """Returns True if the owner surely is gone; on another host or in another container it never counts as gone."""
        if self.host != socket.gethostname():
            return False
        if self.boot_id and self.boot_id != _boot_id():
            return True
        if self.is_out_of_sight():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        start = _process_start(self.pid)
        return bool(start and self.process_start and start != self.process_start)

    def is_out_of_sight(self) -> bool:
        """Returns True if the owner is in another container of this host, where its process id means another one."""
        here = self.host == socket.gethostname() and self.boot_id == _boot_id()
        return here and bool(self.space) and self.space != _process_space()


def read_owner(path: Path) -> LockOwner | None:
    """Reads a lock file; None if it is not there or no lock of ours."""
    try:
        data = json.loads(read_file(path))
        return LockOwner(**data)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


class RunLock:
    """Holds a folder for the time of a ``with`` block.

    Args:
        folder: The run folder; it must exist.

    Raises:
        InputError: On entry, if another living process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._owner: LockOwner | None = None
        self._held: int | None = None

    @contextlib.contextmanager
    def _serialised(self) -> Iterator[None]:
        """Lets one process at a time judge and replace a stale lock, where the system can."""
        try:
            import fcntl
        except ImportError:  # no such call on this platform; the link below stays atomic
            yield
            return
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def __enter__(self) -> RunLock:
        owner = LockOwner.current()
        temporary = self.path.with_name(f".tmp-lock-{uuid.uuid4().hex[:12]}")
        temporary.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        try:
            with self._serialised():
                other = read_owner(self.path)
                if self.path.exists() and (other is None or other.is_stale() or self._is_released(other)):
                    self.path.unlink(missing_ok=True)
                try:
                    os.link(temporary, self.path)  # fails if the lock exists; appears with its content
                    self._hold()
                except FileExistsError:
                    raise InputError(self._refusal(other)) from None
        finally:
            temporary.unlink(missing_ok=True)
        self._owner = owner
        return self

    def _hold(self) -> None:
        """Holds the file by the system too, which lets go when this process ends, in whatever container."""
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            self._held = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_released(self, other: LockOwner) -> bool:
        """Returns True if an owner in another container no longer holds its file."""
        if not other.is_out_of_sight():
            return False
        try:
            import fcntl

            descriptor = os.open(self.path, os.O_RDONLY)
        except (ImportError, OSError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _refusal(self, other: LockOwner | None) -> str:
        folder = self.path.parent
        if other is None:
            return f"{folder}: locked by another process; wait for it, or delete {self.path}"
        text = f"{folder}: in use by process {other.pid} on {other.host} since {other.since}; wait for it"
        if other.host != socket.gethostname() or other.is_out_of_sight():
            text += f", or delete {self.path} if that process is gone"
        return text

    def __exit__(self, *_: object) -> None:
        if self._owner is not None and read_owner(self.path) == self._owner:
            self.path.unlink(missing_ok=True)
        if self._held is not None:
            os.close(self._held)
        self._owner = self._held = None
