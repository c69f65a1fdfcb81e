"""Progress of long loops: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track", "track_bytes"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLAIN_INTERVAL_SECONDS = 15.0


def track(items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how far the loop is.

    Args:
        items: What is looped over.
        description: What the loop does.
        total: Number of items; None asks ``len(items)`` where that is possible.

    Yields:
        The items, unchanged.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            task = progress.add_task(description, total=total, rate="")
            start = time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                elapsed = time.monotonic() - start
                rate = f"{done / elapsed:.1f}/s" if elapsed > 0 else ""
                progress.update(task, advance=1, rate=rate)
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            logger.info("%s: %d of %s, %.1f/s", description, done, total or "?", done / (now - start))
    elapsed = time.monotonic() - start
    if elapsed >= _PLAIN_INTERVAL_SECONDS:
        logger.info("%s: done, %d in %.0f s", description, done, elapsed)


@contextlib.contextmanager
def track_bytes(*, description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows how much of something has been moved.

    Args:
        description: What is moved.
        total: Size of the whole in bytes, None if unknown.

    Yields:
        A function that takes the number of bytes that are there now; it may go down.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            task = progress.add_task(description, total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    last = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            whole = "?" if total is None else f"{total / 1e6:.0f}"
            logger.info("%s: %.0f of %s MB", description, done / 1e6, whole)

    yield show
