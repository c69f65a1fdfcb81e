"""Progress of long loops: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["duration", "track", "track_bytes"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLAIN_INTERVAL_SECONDS = 30.0


def track(
    items: Iterable[T],
    *,
    description: str,
    total: int | None = None,
    unit: str | None = None,
    size: Callable[[T], int] | None = None,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yields the items and shows how far the loop is: a bar, or a line every half minute where there is no terminal.

    Args:
        items: What is looped over.
        description: What the loop does.
        total: Number of items, or of units if they are counted; None asks ``len(items)`` where that is possible.
        unit: What a stage of a run makes, such as "images"; rates are then per hour, and a last line sums up.
        size: Units of an item; None counts each item once.
        note: More to show, asked whenever something is shown.

    Yields:
        The items, unchanged.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    pace = _Pace(description, total, unit, note)
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
            for item in items:
                yield item
                advance = 1 if size is None else size(item)
                pace.done += advance
                progress.update(task, advance=advance, rate=pace.rate(time.monotonic()))
        return
    last = pace.start
    for item in items:
        yield item
        pace.done += 1 if size is None else size(item)
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_SECONDS:
            last = now
            logger.info("%s", pace.line(now))
    now = time.monotonic()
    if pace.done and (unit is not None or now - pace.start >= _PLAIN_INTERVAL_SECONDS):
        logger.info("%s", pace.last_line(now))


class _Pace:
    """How fast a loop is, in words."""

    def __init__(
        self, description: str, total: int | None, unit: str | None, note: Callable[[], str] | None
    ) -> None:
        self.description, self.total, self.unit, self.note = description, total, unit, note
        self.start = time.monotonic()
        self.done = 0

    def rate(self, now: float) -> str:
        """Items per second, or units per hour, and the note."""
        elapsed = now - self.start
        if elapsed <= 0 or not self.done:
            return ""
        each = self.done / elapsed
        words = [f"{each:.1f}/s" if self.unit is None else f"{each * 3600:,.0f} {self.unit}/h"]
        if self.note is not None:
            words.append(self.note())
        return ", ".join(word for word in words if word)

    def line(self, now: float) -> str:
        """Where the loop is and how long it will take."""
        counted = f" {self.unit}" if self.unit else ""
        words = [f"{self.description}: {self.done} of {self.total or '?'}{counted}", self.rate(now)]
        if self.total and self.done:
            left = (now - self.start) / self.done * (self.total - self.done)
            words.append(f"{duration(left)} left")
        return ", ".join(word for word in words if word)

    def last_line(self, now: float) -> str:
        """What the loop came to."""
        counted = f" {self.unit}" if self.unit else ""
        took = f"{self.description}: done, {self.done}{counted} in {duration(now - self.start)}"
        return ", ".join(word for word in (took, self.rate(now)) if word)


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "12 min", "3 h 5 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60:,} h {minutes % 60} min"


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
