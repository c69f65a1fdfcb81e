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
    seconds = iter([0.0, 1.0, 20.0, 21.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with (
        caplog.at_level(logging.INFO, logger="instbench"),
        progress.track_bytes(description="fetching", total=9_000_000) as show,
    ):
        for done in (1_000_000, 4_000_000, 5_000_000):
            show(done)
    assert [record.getMessage() for record in caplog.records] == ["fetching: 4 of 9 MB"]
