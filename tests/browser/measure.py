"""How fast a large report is in Chromium: ``python -m tests.browser.measure PAGE`` prints milliseconds."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

_FILTERS = (("failure", "misplaced"), ("category", "category 7"), ("count", "7-"), ("sort", "objects"))
_CHANGE = """([name, value]) => {
  const list = document.getElementById(name), start = performance.now();
  list.value = value;
  list.dispatchEvent(new Event("change"));
  document.body.offsetHeight;
  return performance.now() - start;
}"""
_OPEN = """() => new Promise((done) => {
  const start = performance.now();
  document.querySelector("#cards .card").click();
  const opened = () => document.getElementById("image").open;
  const look = () => (opened() ? done(performance.now() - start) : requestAnimationFrame(look));
  look();
})"""


def measure(page: Any, address: str) -> dict[str, float]:
    """Opens a report and uses it.

    Args:
        page: A page of Playwright.
        address: The report's.

    Returns:
        Milliseconds to the first cards, of each filter with its cards, and to open an image.
    """
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("#cards .card", timeout=120_000)
    found = {"first cards": 1000 * (time.perf_counter() - start)}
    for name, value in _FILTERS:
        found[f"{name} {value}"] = page.evaluate(_CHANGE, [name, value])
    for name in ("failure", "category", "count"):
        page.evaluate(_CHANGE, [name, ""])
    found["open an image"] = page.evaluate(_OPEN)
    return found


def main() -> None:
    """Prints the figures at the sizes of a desk and a phone."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    address = parser.parse_args().page.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, height in ((1280, 900), (390, 844)):
            page = browser.new_page(viewport={"width": width, "height": height})
            for name, value in measure(page, address).items():
                sys.stdout.write(f"{width:5d}  {name:22}  {value:6.0f} ms\n")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
