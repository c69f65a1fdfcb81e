"""Run folders at an address, through fsspec: what is there, whole files to and fro, and one writer at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from instbench.errors import InputError
from instbench.runs.atomic import TEMPORARY_PREFIX, atomic_path
from instbench.runs.lock import LOCK_NAME, LockOwner

__all__ = ["LOCK_STALE_AFTER", "Target", "TargetFile", "TargetLock", "is_url", "shown"]

logger = logging.getLogger(__name__)

LOCK_STALE_AFTER = 600.0
"""Seconds without a sign of life after which a lock counts as left behind."""
LOCK_RENEWED_EVERY = 60.0
LOCK_SETTLES = 1.0
"""Seconds between taking over a lock that was left behind and reading it back."""

_PUT_IS_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}
# A listing and a look at one file may tell the time in different precision, so a check sum goes first.
_CHECK_SUMS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
_TIMES = ("mtime", "LastModified", "last_modified", "created")
_EXTRAS = {"s3": "s3", "s3a": "s3"}


def is_url(where: object) -> bool:
    """Whether an argument is an address for fsspec and no local path."""
    return isinstance(where, str) and "://" in where


def shown(url: str) -> str:
    """An address without user, password, query and fragment: what may stand in files and messages."""
    scheme, _, rest = url.partition("://")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://" + f"{host.rpartition('@')[2]}{slash}{path}".rstrip("/")


@dataclass(frozen=True, slots=True)
class TargetFile:
    """A file at the target.

    Attributes:
        size: Bytes.
        token: Changes when the file does: a check sum or version where the file system has one, else its times.
    """

    size: int
    token: str


class Target:
    """A folder at an address. Whatever goes wrong there is one `InputError`.

    Args:
        url: The address, such as ``s3://bucket/run``.

    Raises:
        InputError: If the protocol is unknown or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.name = shown(url)
        self._secrets = [text for text in (url, urlsplit(url).query, urlsplit(url).password or "") if text]
        if "::" in url:
            raise InputError(f"{self.name}: chained addresses are not supported; give the innermost one")
        with self._one_line("open it"):
            import fsspec

            self._fs, root = fsspec.core.url_to_fs(url)
            self._root = str(root).rstrip("/")
            self._fs.invalidate_cache()
        if not self._root:
            raise InputError(f"{self.name}: names no bucket or folder; give one, such as s3://bucket/run")
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self._atomic = bool(protocols & _PUT_IS_ATOMIC)

    def files(self) -> dict[str, TargetFile]:
        """Returns every file below the address by its relative name."""
        with self._one_line("list it"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
            # A name that ends with a slash is how some tools mark a folder in an object store.
            names = {
                self._relative(name): _file(info)
                for name, info in found.items()
                if info.get("type") != "directory" and not str(name).endswith("/")
            }
        if "" in names:
            raise self._is_a_file()
        return names

    def check_folder(self) -> None:
        """Refuses an address that is a file: an object store would write below it all the same."""
        with self._one_line("look at it"):
            if self._fs.isfile(self._root):
                raise self._is_a_file()

    def _is_a_file(self) -> InputError:
        return InputError(f"{self.name}: is a file, not a folder; choose another address")

    def get(self, name: str, path: Path) -> None:
        """Fetches a file to a local path, whole or not at all."""
        with self._one_line(f"read {name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                self._fs.get_file(self._path(name), str(temporary))

    def put(self, path: Path, name: str) -> TargetFile:
        """Stores a local file; readers see the old one or the whole new one."""
        with self._one_line(f"write {name}"):
            if self._atomic:
                self._fs.put_file(str(path), self._path(name))
            else:
                folder, slash, last = self._path(name).rpartition("/")
                self._fs.makedirs(folder, exist_ok=True)
                temporary = f"{folder}{slash}{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{last}"
                try:
                    self._fs.put_file(str(path), temporary)
                    self._fs.mv(temporary, self._path(name))
                except BaseException:
                    with contextlib.suppress(Exception):
                        self._fs.rm_file(temporary)
                    raise
            self._fs.invalidate_cache()
            return _file(self._fs.info(self._path(name)))

    def remove(self, name: str) -> None:
        """Deletes a file; one that is gone already is no error."""
        with self._one_line(f"delete {name}"), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def read_bytes(self, name: str) -> bytes | None:
        """Returns a small file, None if it is not there."""
        with self._one_line(f"read {name}"):
            self._fs.invalidate_cache()
            try:
                data: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return data

    def write_bytes(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Writes a small file; with `new`, returns False if there is one (where the file system can tell)."""
        with self._one_line(f"write {name}"):
            path = self._path(name)
            if not self._atomic:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if new:
                try:
                    self._fs.pipe_file(path, data, mode="create")
                except FileExistsError:
                    return False
                except (NotImplementedError, ValueError):  # no such mode there
                    if self.read_bytes(name) is not None:
                        return False
                    self._fs.pipe_file(path, data)
            else:
                self._fs.pipe_file(path, data)
            return True

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _relative(self, path: str) -> str:
        return str(path).removeprefix(self._root).lstrip("/")

    @contextlib.contextmanager
    def _one_line(self, doing: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # every backend has errors of its own
            text = " ".join(str(error).split())
            for secret in self._secrets:
                text = text.replace(secret, "...")
            fix = "check the address, your credentials and permission"
            if isinstance(error, ImportError):
                extra = _EXTRAS.get(self.name.partition("://")[0])
                fix = f"pip install 'instbench[{extra}]'" if extra else "install it"
            raise InputError(
                f"{self.name}: cannot {doing} ({type(error).__name__}: {text[:200]}); {fix}, then run the same "
                "command again"
            ) from None


def _file(info: dict[str, Any]) -> TargetFile:
    told = [str(info[name]).strip('"') for name in _CHECK_SUMS if info.get(name) is not None]
    told = told or [_time(info[name]) for name in _TIMES if info.get(name) is not None]
    return TargetFile(int(info.get("size") or 0), "|".join([str(info.get("size")), *told]))


def _time(told: object) -> str:
    """A time as seconds: a listing may give a date, and a look at the file seconds or a date of another zone."""
    if isinstance(told, datetime) and told.tzinfo is not None:
        told = told.timestamp()
    return f"{told:.6f}" if isinstance(told, int | float) else str(told)


class TargetLock:
    """One writer per address: a lock file that names its owner and is renewed while it lives.

    A lock counts as left behind when its process is gone from this host, or was not renewed for `LOCK_STALE_AFTER`
    seconds by the clocks of both machines. Where a file system cannot create a file only if there is none, two
    processes that start within the same moment are told apart by reading the lock back.

    Args:
        target: The address.

    Raises:
        InputError: On entry, if another process holds the address; names it.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._token = uuid.uuid4().hex
        self._owner = LockOwner.current()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self.lost = False

    def __enter__(self) -> TargetLock:
        left_behind = self._refuse_living()
        taken = self._target.write_bytes(LOCK_NAME, self._content(), new=not left_behind)
        if left_behind:  # of several that take it over the last to write has it, and the others read that
            time.sleep(LOCK_SETTLES)
        if not taken or not self._is_ours():
            self._refuse_living()
            raise InputError(f"{self._target.name}: was taken by another process just now; wait for it")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=LOCK_RENEWED_EVERY)
        with contextlib.suppress(InputError):  # an address that vanished was told already
            if self._is_ours():
                self._target.remove(LOCK_NAME)

    def check(self) -> None:
        """Refuses to go on when another process took the lock over, for example after a suspended night."""
        if self.lost:
            raise InputError(f"{self._target.name}: another process took over; run the same command again")

    def _content(self) -> bytes:
        renewed = datetime.now(UTC).isoformat(timespec="seconds")
        return json.dumps({**asdict(self._owner), "token": self._token, "renewed": renewed}).encode()

    def _read(self) -> dict[str, Any] | None:
        """The lock that is there, empty if it is torn or none of ours; None if there is none."""
        data = self._target.read_bytes(LOCK_NAME)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_ours(self) -> bool:
        return (self._read() or {}).get("token") == self._token

    def _refuse_living(self) -> bool:
        """Returns True if there is a lock that nobody holds any more; one that is held is refused."""
        found = self._read()
        if found is None:
            return False
        try:
            owner = LockOwner(**{field.name: found[field.name] for field in fields(LockOwner)})
            silent = (datetime.now(UTC) - datetime.fromisoformat(found["renewed"])).total_seconds()
            # Another machine may have our name: only on this very machine can a process be looked for.
            gone = owner.boot_id == self._owner.boot_id and owner.is_stale()
        except (KeyError, TypeError, ValueError, OverflowError):
            return True  # no lock of ours, or a torn one
        if not gone and silent < LOCK_STALE_AFTER:
            raise InputError(
                f"{self._target.name}: in use by process {owner.pid} on {owner.host} since {owner.since}; wait for it "
                f"(a lock without a sign of life is taken over after {LOCK_STALE_AFTER / 60:.0f} minutes)"
            )
        return True

    def _renew(self) -> None:
        while not self._stop.wait(LOCK_RENEWED_EVERY):
            try:
                if not self._is_ours():
                    self.lost = True
                    return
                self._target.write_bytes(LOCK_NAME, self._content())
            except InputError as error:  # the next push will say so
                logger.debug("%s", error)
