"""Downloads one file over HTTP so that it comes whole or not at all, and goes on where it stopped.

The data gather in ``<name>.part``; what is needed to go on stands in ``<name>.part.json``. The file gets
its name only when its size and SHA-256 are right.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from instbench._version import __version__
from instbench.datasets.fetching.responses import Fatal, Transient, body_start, check_status, next_address
from instbench.errors import InputError
from instbench.progress import track_bytes
from instbench.runs.atomic import sha256_file, write_json

__all__ = ["Receipt", "TransferSettings", "check_file", "download"]

logger = logging.getLogger(__name__)

_PROGRESS_STEP = 1 << 20  # bytes beyond the best so far that make an attempt count as progress
_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How patient a download is.

    Attributes:
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next bytes.
        attempts: Failures in a row, without real progress between them, after which it gives up.
        backoff: First pause in seconds; it doubles with each failure.
        longest_pause: Upper bound of a pause in seconds, also of one that the server asks for.
        max_bytes: Largest file that is taken where no size is known.
    """

    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    attempts: int = 6
    backoff: float = 1.0
    longest_pause: float = 60.0
    max_bytes: int = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class Receipt:
    """What has come.

    Attributes:
        size: Size in bytes.
        sha256: Checksum in hexadecimal.
    """

    size: int
    sha256: str


def check_file(path: Path, *, size: int | None = None, sha256: str | None = None) -> Receipt:
    """Checks a whole file.

    Args:
        path: The file.
        size: Size that it must have, None for any.
        sha256: Checksum that it must have, None for any.

    Returns:
        Its size and checksum.

    Raises:
        InputError: If either differs.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise InputError(f"{path}: has {found} bytes, not {size}; delete it and fetch again")
    digest = sha256_file(path)
    if sha256 is not None and digest != sha256:
        raise InputError(f"{path}: its SHA-256 is {digest}, not {sha256}; delete it and fetch again")
    return Receipt(found, digest)


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    settings: TransferSettings | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Receipt:
    """Downloads a file, or goes on with an interrupted download of it.

    A file that is already at ``target`` is checked and kept. Broken connections, time-outs and the
    answers 408, 429 and 5xx are tried again, with growing pauses; a server that cannot send a part of a
    file sends it from the start. Redirects lead only to http and https, never from https back to http.

    Args:
        url: http or https address.
        target: The file to write; its folder must exist.
        size: Size in bytes that it must have, None if unknown.
        sha256: Checksum that it must have, None if unknown.
        settings: Patience; None takes the defaults.
        sleep: Called with the seconds of a pause.

    Returns:
        Size and checksum of the file.

    Raises:
        InputError: If the server refuses, sends something else, or keeps failing; or if size or checksum
            are wrong. What has come is kept for the next call, unless its checksum is wrong.
        OSError: If the disk is full or cannot be written; what has come is kept.
    """
    if target.exists():
        return check_file(target, size=size, sha256=sha256)
    transfer = _Transfer(url, target, size, sha256, settings or TransferSettings(), sleep)
    resumed = transfer.offset() > 0
    transfer.run()
    try:
        receipt = check_file(transfer.part, size=size, sha256=sha256)
    except InputError as error:
        transfer.forget()
        if not resumed:
            raise InputError(
                f"{url}: {_reason(error)}; nothing was kept, try again or another mirror"
            ) from None
        logger.warning("%s: the continued download is damaged; starting again", target.name)
        transfer.run()
        try:
            receipt = check_file(transfer.part, size=size, sha256=sha256)
        except InputError as again:
            transfer.forget()
            raise InputError(f"{url}: {_reason(again)}; nothing was kept, try another mirror") from None
    os.replace(transfer.part, target)  # noqa: PTH105 - replaces on every platform
    transfer.note.unlink(missing_ok=True)
    return receipt


def _reason(error: InputError) -> str:
    """The middle of a message of `check_file`: what is wrong, without the file and its advice."""
    return str(error).partition(": ")[2].partition(";")[0]


@dataclass(slots=True)
class _Transfer:
    url: str
    target: Path
    size: int | None
    sha256: str | None
    settings: TransferSettings
    sleep: Callable[[float], None]

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def offset(self) -> int:
        """Bytes that are there and can be gone on from."""
        try:
            there = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        noted_url, validator = self._noted()
        # Without a checksum in the end, only the server can tell that both halves are of one file.
        usable = noted_url == self.url and (validator or self.sha256 is not None)
        too_long = self.size is not None and there > self.size
        return there if usable and not too_long else 0

    def forget(self) -> None:
        """Removes what has come."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def run(self) -> None:
        """Fills the part file, whatever number of attempts it takes."""
        failures = 0
        best = self.offset()
        timeout = httpx.Timeout(self.settings.read_timeout, connect=self.settings.connect_timeout)
        with (
            httpx.Client(timeout=timeout, follow_redirects=False, headers=_HEADERS) as client,
            track_bytes(description=f"fetching {self.target.name}", total=self.size) as show,
        ):
            while True:
                try:
                    self._attempt(client, show)
                    return
                except Fatal as error:
                    raise InputError(f"{self.url}: {error}") from None
                except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                    raise InputError(f"{self.url}: is no usable address ({error})") from None
                except (httpx.TransportError, Transient) as error:
                    reached = self.offset()
                    failures = 1 if reached - best >= _PROGRESS_STEP else failures + 1
                    best = max(best, reached)
                    self._pause_or_give_up(error, failures)

    def _attempt(self, client: httpx.Client, show: Callable[[int], None]) -> None:
        offset = self.offset()
        if self.size is not None and offset == self.size:
            return
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            _, validator = self._noted()
            if validator:
                headers["If-Range"] = validator
        with _open(client, self.url, headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                self.forget()
                raise Transient("the server cannot go on from here; starting again")
            check_status(response)
            try:
                start, whole = body_start(response, offset, self.size)
            except Transient:
                self.forget()  # this server cannot say where it goes on
                raise
            limit = whole if whole is not None else self.settings.max_bytes
            self._check_space(limit - start if whole is not None else 0)
            if start == 0:
                self._write_note(response)
            elif start != offset:
                self.forget()
                raise Transient("the server sent another part than was asked for; starting again")
            self._receive(response, start, limit, show)
        there = self.part.stat().st_size
        if whole is not None and there < whole:
            raise Transient(f"the connection ended after {there} of {whole} bytes")

    def _receive(self, response: httpx.Response, start: int, limit: int, show: Callable[[int], None]) -> None:
        with self.part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            stream.truncate()
            try:
                for chunk in response.iter_raw():
                    if stream.tell() + len(chunk) > limit:
                        raise Fatal(f"the server sends more than {limit} bytes")
                    stream.write(chunk)
                    show(stream.tell())
            finally:  # an interruption too leaves a part that can be gone on from
                stream.flush()
                os.fsync(stream.fileno())

    def _check_space(self, needed: int) -> None:
        if shutil.disk_usage(self.target.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.target))

    def _noted(self) -> tuple[str | None, str | None]:
        try:
            data = json.loads(self.note.read_text(encoding="utf-8"))
            return data["url"], data["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    def _write_note(self, response: httpx.Response) -> None:
        self.part.unlink(missing_ok=True)  # never old data beside a new note
        tag = response.headers.get("ETag", "")
        strong = tag if tag and not tag.startswith("W/") else None
        validator = strong or response.headers.get("Last-Modified")
        write_json(self.note, {"url": self.url, "validator": validator})

    def _pause_or_give_up(self, error: Exception, failures: int) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if failures >= self.settings.attempts:
            raise InputError(
                f"{self.url}: gave up after {failures} failures ({reason}); "
                "run the same command again to go on from here"
            ) from None
        pause = self.settings.backoff * 2 ** (failures - 1)
        asked = error.retry_after if isinstance(error, Transient) else None
        pause = min(self.settings.longest_pause, max(pause, asked or 0.0))
        logger.warning("%s: %s; trying again in %.0f s", self.target.name, reason, pause)
        self.sleep(pause)


_HEADERS = {"User-Agent": f"instbench/{__version__}", "Accept-Encoding": "identity"}


@contextmanager
def _open(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """Opens an address, following a bounded number of redirects."""
    for _ in range(_MAX_REDIRECTS + 1):
        with client.stream("GET", url, headers=headers) as response:
            if not response.has_redirect_location:
                yield response
                return
            url = next_address(response)
    raise Fatal(f"more than {_MAX_REDIRECTS} redirects")
