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
    if not _COUNTS:
        return
    named = ", ".join(f"{number} {kind}" for kind, number in sorted(_COUNTS.items()) if kind != "lost")
    lost = [str(_COUNTS["lost"])] if _COUNTS["lost"] else []
    # A test that fails before it can count what is gone must not read as if nothing were.
    if failed := sum(len(terminalreporter.getreports(kind)) for kind in ("failed", "error")):
        lost.append(f"see the {failed} failures")
    terminalreporter.write_line(
        f"faults: {sum(_COUNTS.values()) - _COUNTS['lost']} cases ({named}); lost: {', '.join(lost) or 'nothing'}"
    )
    for report in terminalreporter.getreports("skipped"):
        terminalreporter.write_line(f"faults: not tried here: {report.nodeid.rpartition('::')[2]}")
