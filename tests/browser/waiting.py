"""Assertions that wait for what a page does a moment after a click or a key."""

from __future__ import annotations

from typing import Any


def eventually(subject: Any) -> Any:
    """Playwright's assertions on a page or locator, which try again for five seconds.

    A click that changes the page's address is answered by an event of its own, which a busy machine may deliver
    after the click has returned: what depends on it is never read at once.
    """
    from playwright.sync_api import expect  # only `make test-browser` installs it

    return expect(subject)
