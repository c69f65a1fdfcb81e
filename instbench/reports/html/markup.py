"""Text to HTML, safely: escaping, elements, bars, and the frame of a page.

Everything that comes from data goes through `escape`, or, for scripts, through `json_block`. The page's policy allows
the one script and the one style sheet that are written here, by their hashes, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

__all__ = ["bar", "details", "escape", "isolated", "json_block", "page", "section", "table"]


def escape(value: object) -> str:
    """Text that is safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def isolated(value: object) -> str:
    """Escaped text whose direction of writing does not reach its neighbours."""
    return f'<bdi dir="auto">{escape(value)}</bdi>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """A table that scrolls inside itself on narrow screens.

    Args:
        headings: Plain text of the first row.
        rows: Cells as finished HTML.
        numbers: Columns that are aligned as numbers.

    Returns:
        HTML.
    """
    right = frozenset(numbers)
    classes = ['class="number"' if column in right else "" for column in range(len(headings))]
    head = "".join(
        f'<th scope="col" {kind}>{escape(one)}</th>' for one, kind in zip(headings, classes, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(value: float | None, interval: tuple[float, float] | None = None, *, kind: str = "") -> str:
    """A horizontal bar from 0 to 1 with whiskers at the ends of its interval.

    Args:
        value: Length as a share of the width; None draws the empty rail.
        interval: Ends of the 95 % interval, as shares.
        kind: Extra CSS class of the drawing.

    Returns:
        An SVG that is hidden from screen readers, since the number stands beside it.
    """
    parts = ['<rect class="rail" width="100%" height="14" y="3" rx="2"/>']
    if value is not None:
        parts.append(f'<rect class="fill" width="{_share(value)}" height="14" y="3" rx="2"/>')
        if interval is not None:
            low, high = (_share(end) for end in interval)
            parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="10" y2="10"/>')
            parts += [f'<line class="whisker" x1="{end}" x2="{end}" y1="5" y2="15"/>' for end in (low, high)]
    return f'<svg class="bar {escape(kind)}" height="20" aria-hidden="true">{"".join(parts)}</svg>'


def _share(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def section(name: str, title: str, content: str) -> str:
    """A titled part of the page that a link can lead to."""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{content}</section>'


def details(title: str, content: str) -> str:
    """A part that opens on demand."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def json_block(name: str, value: Any) -> str:
    """Data for the script; no text in it can end the block, since ``<``, ``>`` and ``&`` are written as escapes."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def page(title: str, body: str, *, linked_images: bool = False) -> str:
    """The whole document.

    Args:
        title: Plain text.
        body: Finished HTML.
        linked_images: Whether images lie beside the page and not inside it.

    Returns:
        HTML with style, script and policy.
    """
    assets = resources.files("instbench.reports.html") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    images = "data: 'self' file:" if linked_images else "data:"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body>{body}<script>{script}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
