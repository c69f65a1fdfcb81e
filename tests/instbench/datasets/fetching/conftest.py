"""A server per test, reached without any proxy of the surroundings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.instbench.datasets.fetching.server import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        yield running
