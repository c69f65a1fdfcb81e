"""Where the time of a run goes: seconds per stage, and how many of them the networks take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from instbench.execution.session import Evaluators
from instbench.runs.records import RunRecord, TotalsRecord
from instbench.runs.store import RunFolder

__all__ = ["Stages", "Stopwatch", "sum_up"]

_CALLS = ("detect", "similarity", "features")


class Stopwatch:
    """Adds the seconds in which networks work.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def network(self) -> Iterator[None]:
        """Within the block a network works."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - start

    def watch(self, evaluators: Evaluators) -> Evaluators:
        """The evaluators, with every look at images counted as work of a network."""
        return _watched(evaluators, self.network)


class Stages:
    """Adds the seconds of each stage to a record, and those inside of the networks.

    Both are taken in the thread that calls the networks: images that are written or read in the background while a
    network works cost no time of their own, only what the stage waits for them does.

    Args:
        record: The record of the run.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._stage = ""

    @contextmanager
    def run(self, stage: str) -> Iterator[None]:
        """Within the block the stage runs."""
        self._stage = stage
        with _adding(self.record.timings, stage):
            yield

    @contextmanager
    def network(self) -> Iterator[None]:
        """Within the block a network of the stage works."""
        with _adding(self.record.seconds_in_networks, self._stage):
            yield

    def watch(self, evaluators: Evaluators) -> Evaluators:
        """The evaluators, with every look at images counted as work of a network."""
        return _watched(evaluators, self.network)

    def spent(self, seconds: float) -> None:
        """Adds seconds in which networks of the stage worked elsewhere."""
        inside = self.record.seconds_in_networks
        inside[self._stage] = round(inside.get(self._stage, 0.0) + seconds, 6)


def _watched(evaluators: Evaluators, network: Callable[[], AbstractContextManager[None]]) -> Evaluators:
    loaded = {name: getattr(evaluators, name) for name in ("detector", "image_text", "features")}
    watched = {name: _Watched(one, network) for name, one in loaded.items() if one is not None}
    return replace(evaluators, **watched)


class _Watched:
    """An evaluator; all but the time is its own."""

    def __init__(self, evaluator: Any, network: Callable[[], AbstractContextManager[None]]) -> None:
        self._evaluator = evaluator
        self._network = network

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._evaluator, name)
        return self._timed(found) if name in _CALLS else found

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._network():
                return function(*args, **kwargs)

        return timed


@contextmanager
def _adding(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 6)


def sum_up(run: RunFolder, record: RunRecord, keys: set[str]) -> TotalsRecord:
    """Totals of a run over all of its calls.

    Args:
        run: The run folder; its log has one entry per image that counts, the last one.
        record: Its record, with the seconds of all calls.
        keys: Image keys of the run.

    Returns:
        The totals.
    """
    log = [entry for key, entry in run.read_image_log().items() if key in keys and "error" not in entry]
    seconds = sum(_number(entry.get("seconds")) for entry in log)
    facts = [info for entry in log if isinstance(info := entry.get("info"), dict)]
    calls = [_number(info["unet_calls"]) for info in facts if "unet_calls" in info]
    rows = [_number(info["unet_rows"]) for info in facts if "unet_rows" in info]
    whole, inside = sum(record.timings.values()), sum(record.seconds_in_networks.values())
    return TotalsRecord(
        images=len(log),
        seconds_generating=round(seconds, 3),
        seconds_per_image=round(seconds / len(log), 4) if log else None,
        images_per_hour=round(3600 * len(log) / seconds, 1) if seconds > 0 else None,
        unet_calls=round(sum(calls)) if calls else None,
        unet_rows=round(sum(rows)) if rows else None,
        share_outside_networks=round(max(0.0, 1 - inside / whole), 4) if whole > 0 and inside else None,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
