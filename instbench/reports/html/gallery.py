"""The gallery's controls and the dialog of one image; `assets/report.js` fills both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from instbench.reports.html.entries import Entry
from instbench.reports.html.markup import escape, section

__all__ = ["gallery_section"]

_COUNTS = (("1", "1"), ("2-3", "2 to 3"), ("4-6", "4 to 6"), ("7-", "7 or more"))


def gallery_section(entries: Sequence[Entry], labels: Sequence[str]) -> str:
    """The section with controls; the cards are made in the browser, a page of them at a time.

    Args:
        entries: All images.
        labels: Names of the runs; two make a comparison.

    Returns:
        HTML.
    """
    kinds = sorted(
        {one.failure for entry in entries for view in entry.views for one in view.outcomes if one.failure}
    )
    categories = sorted({one.category for entry in entries for one in entry.asked})
    orders = [
        ("worst", "worst first"),
        ("best", "best first"),
        ("objects", "most objects"),
        ("key", "image key"),
    ]
    if len(labels) > 1:
        orders = [
            ("difference", "largest difference"),
            ("second", "second run better"),
            ("first", "first run better"),
            *orders,
        ]
    shows = (("asked", "asked"), ("found", "found"), ("labels", "labels"))
    checks = "".join(
        f'<label><input type="checkbox" id="show-{name}"{"" if name == "labels" else " checked"}> {text}</label>'
        for name, text in shows
    )
    controls = (
        '<form class="controls" id="controls" role="search" aria-label="Filter images">'
        + _select("sort", "Sort", orders)
        + _select("failure", "Failure", [("", "any"), *((kind, kind) for kind in kinds)])
        + _select("category", "Category", [("", "any"), *((name, name) for name in categories)])
        + _select("count", "Objects", [("", "any"), *_COUNTS])
        + '<label>Search <input type="search" id="search" placeholder="caption, phrase, key"></label>'
        + f'<fieldset class="shows"><legend>Draw</legend>{checks}</fieldset></form>'
    )
    pager = (
        '<div class="pager"><button type="button" class="previous">Previous</button>'
        '<span class="where"></span><button type="button" class="next">Next</button></div>'
    )
    legend = (
        '<p class="note">Solid: asked. Dashed: found; in the colour of the object that it answers, grey where nobody '
        "asked for it. Below an image: objects asked for, the mean overlap or hit, and what went wrong.</p>"
    )
    dialog = (
        '<dialog id="image" aria-labelledby="image-title"><div class="bar-top"><h2 id="image-title"></h2>'
        '<button type="button" id="image-previous" aria-label="Previous image">&larr;</button>'
        '<button type="button" id="image-next" aria-label="Next image">&rarr;</button>'
        '<button type="button" id="image-link">Copy link</button>'
        '<button type="button" id="image-close" aria-label="Close">&times;</button></div>'
        '<div id="image-body"></div></dialog>'
    )
    status = '<p id="status" role="status" aria-live="polite"></p>'
    noscript = "<noscript><p>The images need JavaScript; the numbers do not.</p></noscript>"
    content = noscript + controls + legend + status + pager + '<div id="cards"></div>' + pager + dialog
    return section("gallery", "Images", content)


def _select(name: str, title: str, options: Iterable[tuple[str, str]]) -> str:
    listed = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options)
    return f'<label>{escape(title)} <select id="{escape(name)}">{listed}</select></label>'
