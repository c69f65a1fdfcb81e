"""The `page` fixture notices what it promises to notice."""

import pytest


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("console.error('bad thing')", "console error: bad thing"),
        ("throw new Error('thrown')", "page error: thrown"),
        ("alert(1)", "dialog: 1"),
        ("new Image().src = 'http://example.invalid/x.png'", "request leaves the page"),
        ("new Image().src = 'missing.png'", "request failed"),
    ],
)
def test_problems_are_noticed(tmp_path, page, watch, script, problem):
    file = tmp_path / "index.html"
    file.write_text(f"<!doctype html><title>t</title><script>{script}</script>")
    page.goto(file.as_uri())
    page.wait_for_timeout(200)
    found = [one for one in watch.problems if problem in one]
    watch.problems.clear()
    assert found


def test_a_quiet_page_passes(tmp_path, page, watch):
    file = tmp_path / "index.html"
    file.write_text("<!doctype html><title>quiet</title><p>text</p>")
    page.goto(file.as_uri())
    assert page.title() == "quiet"
    assert watch.requests == [file.as_uri()]
