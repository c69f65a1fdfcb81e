"""The command line in children of a process that has everything imported, each struck at a chosen moment."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.driver import LIMIT_SECONDS

__all__ = ["Child", "Fault", "start"]

# A fresh process forked from a server without threads; forking pytest itself could hang in the libraries.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.preload"])


@dataclass(frozen=True)
class Fault:
    """What happens to a child, and when.

    Attributes:
        how: "kill" for signal 9, or the name of an error number such as "ENOSPC".
        at: "sync", "rename", "renamed" or "draw" strike at the `number`-th such call (of a file whose name contains
            `name`), "write" when `number` bytes have been written.
        number: Counted from 1.
        name: Part of a file name; empty for all files.
    """

    how: str
    at: str
    number: int
    name: str = ""


class _Striker:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.number

    def count(self, at: str, name: str = "") -> None:
        if at == self.fault.at and self.fault.name in name:
            self.left -= 1
            if self.left <= 0:
                self.strike(name)

    def strike(self, name: str) -> None:
        if self.fault.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fault.how)
        raise OSError(number, os.strerror(number), name)


class _Raw(io.FileIO):
    """A file that takes so many bytes and no more."""

    striker: _Striker

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size > self.striker.left:
            super().write(memoryview(data).cast("B")[: self.striker.left])
            self.striker.left = 0
            self.striker.strike(str(self.name))
        self.striker.left -= size
        return super().write(data)


def _watch(fault: Fault, top: Path) -> None:
    striker = _Striker(fault)
    fsync, replace, plain_open = os.fsync, os.replace, io.open

    def watched_fsync(descriptor: int) -> None:
        striker.count("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        striker.count("rename", Path(target).name)
        replace(source, target)
        striker.count("renamed", Path(target).name)

    def watched_open(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) <= {"r", "b", "t"} or not str(file).startswith(str(top)):
            return plain_open(file, mode, *arguments, **options)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        raw.striker = striker
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, options.get("encoding", "utf-8"))

    os.fsync, os.replace = watched_fsync, watched_replace  # type: ignore[assignment]
    if fault.at == "write":
        io.open = watched_open  # type: ignore[assignment]
    if fault.at == "draw":
        from tests.faults.driver import SlowGenerator

        draw = SlowGenerator.draw

        def watched_draw(self: Any, request: Any) -> Any:
            striker.count("draw")
            return draw(self, request)

        SlowGenerator.draw = watched_draw  # type: ignore[method-assign]


def _main(
    arguments: Sequence[str],
    top: Path,
    fault: Fault | None,
    before: Callable[[], None] | None,
    pause: float,
    hold: int,
) -> None:
    from tests.faults import driver

    errors = os.open(top / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ |= {"FAULTS_LOG": str(top / "log"), "FAULTS_HOLD": str(hold)}
    driver.SlowGenerator.pause = driver.SlowDetector.pause = pause
    driver.heed_interrupts()
    driver.install()
    if before is not None:
        before()
    if fault is not None:
        _watch(fault, top)
    sys.exit(driver.main(list(arguments)))


@dataclass
class Child:
    """A running command.

    Attributes:
        process: The process.
        top: Folder with its standard error and its log.
    """

    process: Any
    top: Path

    def end(self) -> tuple[int, str]:
        """Waits; the exit code (negative for a signal) and what was said."""
        self.process.join(LIMIT_SECONDS)
        assert self.process.exitcode is not None, "hangs"
        return self.process.exitcode, (self.top / "stderr").read_text()

    @property
    def log(self) -> list[str]:
        path = self.top / "log"
        return path.read_text().splitlines() if path.exists() else []


def start(
    top: Path,
    *arguments: object,
    fault: Fault | None = None,
    before: Callable[[], None] | None = None,
    pause: float = 0.0,
    hold: int = 0,
) -> Child:
    """Starts the command line.

    Args:
        top: Folder for its standard error and log; made if missing. Writes below it can be struck.
        *arguments: Of the command line.
        fault: What happens to it.
        before: Called in the child first; must be a function of a module.
        pause: Seconds per image and detection.
        hold: Line of the log at which it waits for what is to come, if any.
    """
    top.mkdir(parents=True, exist_ok=True)
    (top / "log").unlink(missing_ok=True)
    texts = [str(one) for one in ("-q", *arguments)]
    process = _CONTEXT.Process(target=_main, args=(texts, top, fault, before, pause, hold))
    process.start()
    return Child(process, top)


def small_files() -> None:
    """No file may grow beyond 4 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def slow_disk() -> None:
    """An image takes longer to write than to make."""
    from instbench.runs.store import RunFolder

    write = RunFolder.write_image

    def slow(self: Any, key: str, image: Any) -> None:
        time.sleep(0.3)
        write(self, key, image)

    RunFolder.write_image = slow  # type: ignore[method-assign]


def little_memory() -> None:
    """Images are made with 64 MB each, and there is room for two at a time."""
    import numpy as np

    from tests.faults.driver import SlowGenerator

    generate = SlowGenerator.generate

    def hungry(self: Any, requests: Any) -> Any:
        taken = np.ones(len(requests) * 64 * 2**20, dtype=np.uint8)
        yield from generate(self, requests)
        del taken

    SlowGenerator.generate = hungry  # type: ignore[method-assign]
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = in_use + 200 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
