"""The leaderboard's page in a real browser, opened from the disk."""

import csv
import io

import pytest

from leaderboards.site import build_site
from leaderboards.submissions import add_submission
from tests.browser.waiting import eventually
from tests.leaderboards.submitting import number, results, write

HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "../../../etc/passwd",
    "\u202eelbaT \u05e9\u05dc\u05d5\u05dd",
    "x" * 10_000,
    "javascript:alert(1)",
    "${alert(1)} {{7*7}} \u2028 \\",
]


def fid(value):
    return {**number(value, [value - 1, value + 1], 4), "unit": "distance", "higher_is_better": False}


def metrics(ap, distance):
    return {"box_ap": number(ap, [round(ap - 0.02, 3), round(ap + 0.02, 3)]), "fid": fid(distance)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    runs = {
        "best": results("best", metrics=metrics(0.8, 30.0)),
        "tied-a": results("tied-a", metrics=metrics(0.51, 10.0)),
        "tied-b": results("tied-b", metrics=metrics(0.5, 20.0)),
        "floor": results("text-only", metrics=metrics(0.1, 90.0)),
        "paper": results("other", edition="paper"),
        "mask": results("masks", benchmark="shapes-mask"),
        "coco": results("photos", benchmark="coco-box"),
        "real": results("real-images", benchmark="shapes-real", metrics=metrics(0.9, 2.0)),
    }
    for name, content in runs.items():
        run = write(folder / "runs" / name, content)
        if name == "best":
            (run / "report.html").write_text("<!doctype html><title>The report</title>")
        add_submission(run, folder / "board", badge="reproduced here" if name == "best" else "self-reported")
    return build_site([folder / "board"], folder / "site")


@pytest.fixture
def opened(page, site):
    page.goto(site.as_uri())
    return page


def board(page, title="shapes-box v1, strict edition"):
    return page.locator("section.board").filter(has=page.get_by_role("heading", name=title, exact=True))


def names(page):
    return board(page).locator("tbody .name").all_inner_texts()


def test_sorts_by_click_and_by_key(opened):
    assert names(opened) == ["real-images", "best", "tied-a", "tied-b", "text-only"]
    head = board(opened).get_by_role("columnheader", name="fid")
    assert head.get_attribute("aria-sort") == "none"
    assert head.get_attribute("title") == "lower is better"
    assert head.inner_text().strip() == "fid \u2193"
    head.get_by_role("button").click()
    assert names(opened) == ["real-images", "tied-a", "tied-b", "best", "text-only"]
    assert head.get_attribute("aria-sort") == "ascending"
    opened.keyboard.press("Enter")
    assert names(opened) == ["text-only", "best", "tied-b", "tied-a", "real-images"]
    board(opened).get_by_role("button", name="model").focus()
    opened.keyboard.press("Space")
    assert names(opened) == ["best", "real-images", "text-only", "tied-a", "tied-b"]


def test_ranks_show_ties_and_neither_end_has_one(opened):
    ranks = dict(zip(names(opened), board(opened).locator("td.rank").all_inner_texts(), strict=True))
    assert ranks == {"real-images": "–", "best": "1", "tied-a": "2–3", "tied-b": "2–3", "text-only": "–"}  # noqa: RUF001
    board(opened).get_by_role("button", name="fid").click()
    ranks = dict(zip(names(opened), board(opened).locator("td.rank").all_inner_texts(), strict=True))
    assert (ranks["tied-a"], ranks["tied-b"], ranks["best"]) == ("1", "2", "3")
    assert "[0.780, 0.820]" in board(opened).inner_text()
    assert board(opened).locator("tr.ceiling .role").inner_text() == "ceiling: real images"
    assert board(opened).locator("tr.floor .role").inner_text() == "floor: text only"


@pytest.mark.parametrize(
    ("label", "value", "count"),
    [
        ("edition", "paper", 1),
        ("condition", "mask", 1),
        ("dataset", "coco", 1),
        ("benchmark", "shapes-box", 2),
    ],
)
def test_filters(opened, label, value, count):
    assert opened.locator("section.board").count() == 5
    opened.locator(f"#measured-filters select[name={label}]").select_option(value)
    assert opened.locator("section.board").count() == count
    assert opened.locator("#measured-status").inner_text() == f"{count} of 5 tables"


def test_badges_and_reports(opened):
    assert board(opened).locator(".badge.good").all_inner_texts() == ["reproduced here"]
    board(opened).get_by_role("link", name="report").click()
    eventually(opened).to_have_title("The report")


def test_downloads_are_made_from_the_page(opened, site):
    with opened.expect_download() as waiting:
        opened.get_by_role("button", name="measured.csv").click()
    text = waiting.value.path().read_text(encoding="utf-8")
    assert text == (site.parent / "measured.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["best_rank"] for row in rows if row["model"] == "best" and row["metric"] == "box_ap"} == {"1"}
    with opened.expect_download() as waiting:
        opened.get_by_role("button", name="measured.json").click()
    assert waiting.value.suggested_filename == "measured.json"


def test_published_numbers_are_a_board_of_their_own(opened):
    assert not opened.locator("#published").is_visible()
    opened.get_by_role("button", name="Published", exact=True).click()
    assert not opened.locator("#measured").is_visible()
    shown = opened.locator("#published-table tbody tr")
    assert "coco-box" in shown.first.inner_text()
    opened.locator("#published-filters select[name=benchmark]").select_option("")
    opened.get_by_label("only where sources differ").check()
    assert 0 < shown.count() < 100
    assert all(row.locator(".number").count() > 1 for row in shown.all()[:5])
    opened.get_by_label("method", exact=True).fill("no such method")
    assert shown.count() == 0


def test_dark_and_light(opened):
    back = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(back)
    opened.get_by_role("button", name="Dark").click()
    dark = opened.evaluate(back)
    assert dark != light
    opened.get_by_role("button", name="Light").click()
    assert opened.evaluate(back) == light
    opened.emulate_media(color_scheme="dark")
    opened.reload()
    assert opened.evaluate(back) == dark


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_is_never_wider_than_the_screen(opened, width):
    opened.set_viewport_size({"width": width, "height": 700})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.get_by_role("button", name="Published", exact=True).click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_keyboard_reaches_everything_and_the_first_stop_skips(opened):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.id") == "show-measured"
    opened.keyboard.press("Tab")
    opened.keyboard.press("Enter")
    assert opened.locator("#published").is_visible()


def test_hostile_names_are_shown_and_not_run(page, watch, tmp_path):
    runs = []
    for position, text in enumerate(HOSTILE):
        content = results(text, metrics={"box_ap": number(0.5, [0.4, 0.6]), text: number(0.1)})
        content["benchmark"] = f"{text}-box"
        content["evaluators"]["detector"]["name"] = text
        runs.append(write(tmp_path / str(position), content))
    index = build_site(runs, tmp_path / "site")
    page.set_viewport_size({"width": 390, "height": 700})
    page.goto(index.as_uri())
    assert sorted(
        page.locator("#boards tbody .name").evaluate_all("all => all.map(one => one.textContent)")
    ) == sorted(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [one for one in watch.requests if not one.startswith("data:")] == [index.as_uri()]
    assert sorted(one.name for one in index.parent.iterdir()) == [
        "index.html",
        "measured.csv",
        "measured.json",
        "published.csv",
    ]


def test_the_policy_stops_what_is_not_the_pages_own(opened, watch):
    opened.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.x = 1'}))"
    )
    assert opened.evaluate("window.x") is None
    opened.evaluate("fetch('https://example.invalid/').catch(() => null)")
    opened.wait_for_timeout(200)
    assert any("Content Security Policy" in one for one in watch.problems)
    assert not any(one.startswith("http") for one in watch.requests)
    watch.problems.clear()
