"""The report of a run in a real browser: sorted, filtered, opened, linked to, and not to be broken by texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instbench.reports.html import build_comparison, build_report
from tests.browser.measure import measure
from tests.browser.waiting import eventually
from tests.instbench.reports.html.dense import make_dense_run
from tests.instbench.reports.html.synthetic import make_run


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the report of 60 images; image i has 1 + i % 3 objects."""
    return build_report(make_run(tmp_path_factory.mktemp("runs") / "plain", 60)).as_uri()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the report of a run whose texts try to break it."""
    return build_report(make_run(tmp_path_factory.mktemp("runs") / "hostile", hostile=True)).as_uri()


def cards(page: Any) -> list[str]:
    keys: list[str] = page.eval_on_selector_all(".card", "all => all.map(one => one.dataset.key)")
    return keys


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return pixels


def test_worst_comes_first_and_order_can_be_chosen(page: Any, plain: str) -> None:
    page.goto(plain)
    first = cards(page)
    assert len(first) == 48
    # Half of the objects of images 1, 4, ... are missing; of 2, 5, ... a third is misplaced; 0, 3, ... are right.
    assert [int(key) % 3 for key in first] == [1] * 20 + [2] * 20 + [0] * 8
    page.select_option("#sort", "objects")
    assert [int(key) % 3 for key in cards(page)][:20] == [2] * 20
    page.select_option("#sort", "key")
    assert cards(page) == [f"{number:012d}" for number in range(48)]
    page.locator(".pager .next").first.click()
    assert cards(page) == [f"{number:012d}" for number in range(48, 60)]


def test_what_the_filters_do_not_mean_is_drawn_faintly(page: Any, plain: str) -> None:
    page.goto(plain)
    third = page.locator('.card[data-key="000000000002"]')  # a cat that is misplaced, a dog and an owl
    eventually(third.locator(".dim > *")).to_have_count(0)
    page.select_option("#category", "dog")
    faint = third.locator(".dim > *").count()
    assert 0 < faint < third.locator("svg rect, svg path").count()
    page.select_option("#failure", "misplaced")
    page.select_option("#category", "cat")
    eventually(third.locator(".dim > *")).to_have_count(faint)  # of three alike objects two step back
    page.locator(".card").first.click()
    eventually(page.locator("#image-body .dim > *")).to_have_count(0)


def test_filters_combine(page: Any, plain: str) -> None:
    page.goto(plain)
    page.select_option("#failure", "missing")
    assert page.inner_text("#status") == "20 of 60 images"
    page.select_option("#category", "dog")
    assert page.inner_text("#status") == "0 of 60 images"  # it is always the cat that is missing
    page.select_option("#failure", "")
    page.select_option("#count", "1")
    assert page.inner_text("#status") == "0 of 60 images"
    page.select_option("#category", "")
    assert page.inner_text("#status") == "20 of 60 images"
    page.select_option("#count", "")
    page.fill("#search", "NUMBER 5")
    eventually(page.locator("#status")).to_have_text("11 of 60 images")


def test_layers_are_drawn_and_hidden(page: Any, plain: str) -> None:
    page.goto(plain)
    page.select_option("#sort", "key")
    drawn = page.locator(".card").first.locator("svg rect")
    assert drawn.count() == 4  # one asked, one found, each with its halo
    page.uncheck("#show-found")
    assert page.locator(".card").first.locator("svg rect").count() == 2
    # The overlay lies exactly on the picture.
    boxes = [page.locator(".card").first.locator(one).bounding_box() for one in (".stage img", ".stage svg")]
    assert boxes[0] == pytest.approx(boxes[1])


def test_keyboard_opens_turns_and_closes(page: Any, plain: str) -> None:
    page.goto(plain)
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    eventually(page.locator("dialog")).to_have_attribute("open", "")
    eventually(page).to_have_url(f"{plain}#image=000000000004")
    eventually(page.locator("#image-title")).to_have_text("000000000004")
    eventually(page.locator("#image-body tbody tr")).to_have_count(2)
    eventually(page.locator("#image-body .command pre")).to_contain_text("/000000000004 -o drawn/again")
    eventually(page.locator("#image-body h3", has_text="Make this image again")).to_be_visible()
    page.keyboard.press("ArrowRight")
    eventually(page).to_have_url(f"{plain}#image=000000000007")
    eventually(page.locator("#image-title")).to_have_text("000000000007")
    page.keyboard.press("Escape")
    eventually(page.locator("dialog")).to_be_hidden()
    eventually(page.locator(".card[data-key='000000000007']")).to_be_focused()
    eventually(page).to_have_url(f"{plain}#gallery")


def test_link_opens_the_image_and_is_copied(page: Any, plain: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{plain}#image=000000000059")
    eventually(page.locator("#image-title")).to_have_text("000000000059")
    page.click("#image-link")
    eventually(page.locator("#image-link")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{plain}#image=000000000059"
    page.click("#image-close")
    eventually(page.locator("dialog")).to_be_hidden()
    for address in ("#image=..%2F..%2Fetc", "#image=%", "#image="):
        # Opened afresh, so that the page has read the address before anything is asserted.
        page.goto("about:blank")
        page.goto(plain + address)
        assert page.locator("#status").inner_text() == "60 of 60 images"
        assert page.locator("dialog[open]").count() == 0


def test_hostile_texts_neither_run_nor_break(page: Any, hostile: str, watch: Any) -> None:
    page.goto(hostile)
    assert len(cards(page)) == 6
    page.check("#show-labels")
    for key in cards(page):
        page.goto(f"{hostile}#image={key}")
        eventually(page.locator("#image-title")).to_have_text(key)
        assert page.evaluate("window.hacked") is None
        assert sideways(page) <= 0
    assert page.locator("#image-body script, #cards script, #image-body img[onerror]").count() == 0
    assert all(one.startswith(("file://", "data:")) for one in watch.requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_colour_scheme(page: Any, plain: str, scheme: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    page.goto(plain)
    assert sideways(page) <= 0
    paper = "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    page.locator(".card").first.click()
    eventually(page.locator("#image-close")).to_be_visible()
    assert page.locator("dialog[open]").bounding_box()["width"] == 360


def test_two_runs_side_by_side(page: Any, tmp_path: Path) -> None:
    runs = make_run(tmp_path / "a", model="good"), make_run(tmp_path / "b", model="worse", shift=0.2)
    page.goto(build_comparison(*runs, tmp_path / "both.html").as_uri())
    # All objects of images 0 and 3 lose 0.2, two thirds of those of 2 and 5, half of those of 1 and 4.
    assert [int(key) for key in cards(page)] == [0, 3, 2, 5, 1, 4]
    assert page.locator(".card").first.locator("img").count() == 2
    assert "-0.20" in page.locator(".card").first.inner_text()
    page.locator(".card").first.click()
    eventually(page.locator("#image-body tbody")).to_have_count(2)


def test_a_dense_report_is_quick(page, tmp_path):
    report = build_report(make_dense_run(tmp_path / "run", 60))
    found = measure(page, report.as_uri())
    assert page.locator("#status").inner_text().endswith("of 60 images")
    assert max(found.values()) < 5000  # 20 to 150 here; the machine may be busy
