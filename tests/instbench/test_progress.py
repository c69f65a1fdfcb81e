from __future__ import annotations

import io
import logging
import sys

import pytest

from instbench import progress


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_items_pass_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(progress.track([3, 1, 2], description="counting")) == [3, 1, 2]
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track(iter("ab"), description="counting", total=2)) == ["a", "b"]
    assert "counting" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_bytes_are_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.track_bytes(description="fetching", total=2_000_000) as show:
        show(500_000)
        show(0)  # the server started again
        show(2_000_000)
    assert "fetching" in terminal.getvalue()
    assert "2.0/2.0 MB" in terminal.getvalue()


def test_elsewhere_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter([0.0, 1.0, 40.0, 41.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with (
        caplog.at_level(logging.INFO, logger="instbench"),
        progress.track_bytes(description="fetching", total=9_000_000) as show,
    ):
        for done in (1_000_000, 4_000_000, 5_000_000):
            show(done)
    assert [record.getMessage() for record in caplog.records] == ["fetching: 4 of 9 MB"]


def tick(monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
    seconds = iter(times)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def test_a_stage_says_its_rate_its_calls_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick(monkeypatch, [0.0, 36.0, 37.0, 72.0, 73.0])
    calls: list[int] = []
    with caplog.at_level(logging.INFO, logger="instbench"):
        for _ in progress.track(
            range(3), description="generate", total=6, unit="images", note=lambda: f"{sum(calls)} UNet calls"
        ):
            calls.append(50)
    assert [record.getMessage() for record in caplog.records] == [
        "generate: 1 of 6 images, 100 images/h, 50 UNet calls, 3 min left",
        "generate: 3 of 6 images, 150 images/h, 150 UNet calls, 72 s left",
        "generate: done, 3 images in 73 s, 148 images/h, 150 UNet calls",
    ]


def test_items_may_hold_several_units(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick(monkeypatch, [0.0, 1.0, 2.0, 3.0])
    chunks = [[1] * 32, [1] * 4]
    with caplog.at_level(logging.INFO, logger="instbench"):
        assert (
            list(progress.track(chunks, description="observe", total=36, unit="images", size=len)) == chunks
        )
    [line] = [record.getMessage() for record in caplog.records]
    assert line == "observe: done, 36 images in 3 s, 43,200 images/h"


def test_short_loops_that_are_no_stage_say_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick(monkeypatch, [0.0, 1.0, 2.0, 3.0])
    with caplog.at_level(logging.INFO, logger="instbench"):
        list(progress.track([1, 2], description="layouts"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 s"), (99, "99 s"), (600, "10 min"), (7500, "2 h 5 min"), (3.6e6, "1,000 h 0 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
