"""Counts the fault cases and what they lost; the sums are printed at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

_COUNTS: Counter[str] = Counter()


@pytest.fixture
def count() -> Callable[[str], None]:
    """Call it once for every fault that was tried, or with "lost" for what was lost."""

    def add(kind: str) -> None:
        _COUNTS[kind] += 1

    return add


@pytest.fixture(autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path_factory.mktemp("home")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _COUNTS:
        lost = _COUNTS["lost"]
        named = ", ".join(f"{number} {kind}" for kind, number in sorted(_COUNTS.items()) if kind != "lost")
        tried = sum(_COUNTS.values()) - lost
        terminalreporter.write_line(f"faults: {tried} cases ({named}); lost: {lost or 'nothing'}")
