"""Numbers with intervals as a plain SVG: one panel per number, one row per thing compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Dot", "Panel", "dot_plot"]

_ROW = 22
_LABELS = 190
_PANEL = 210
_GAP = 26
_TOP = 58
_BOTTOM = 34
_INK = "#1f2933"
_FIRST = "#b45309"
_OTHER = "#2563eb"


@dataclass(frozen=True, slots=True)
class Dot:
    """A number.

    Attributes:
        value: Where the dot is; None draws none.
        ci95: Ends of the whisker; None draws none.
    """

    value: float | None
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One number of everything that is compared.

    Attributes:
        title: What it is.
        dots: One per row; the first is drawn as the one that the others are compared with.
        top: Right end of the axis, which starts at 0; None takes a round number that all are below.
    """

    title: str
    dots: tuple[Dot, ...]
    top: float | None = 1.0


def dot_plot(title: str, rows: Sequence[str], panels: Sequence[Panel]) -> str:
    """Draws the plot.

    Args:
        title: Heading.
        rows: Words of the rows.
        panels: Panels from left to right, with as many dots as rows.

    Returns:
        The text of an SVG file; it needs no fonts and no other file.
    """
    width = _LABELS + len(panels) * (_PANEL + _GAP)
    height = _TOP + len(rows) * _ROW + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="{_INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        y = _TOP + (number + 0.5) * _ROW
        parts.append(f'<text x="{_LABELS - 10}" y="{y + 4:g}" text-anchor="end">{escape(row)}</text>')
    for number, panel in enumerate(panels):
        parts += _panel(panel, _LABELS + number * (_PANEL + _GAP), len(rows))
    return "\n".join([*parts, "</svg>", ""])


def _round_end(largest: float) -> float:
    """The next number above whose half is short too: 1, 2, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1, 2, 4, 5, 6, 8, 10) if largest <= step * power * (1 + 1e-9))


def _panel(panel: Panel, left: float, rows: int) -> list[str]:
    ends = [end for dot in panel.dots for end in (dot.value, *(dot.ci95 or ())) if end is not None]
    top = panel.top or _round_end(max([*ends, 1e-9]))
    bottom = _TOP + rows * _ROW
    parts = [f'<text x="{left}" y="{_TOP - 10}" font-weight="bold">{escape(panel.title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + share * _PANEL
        parts.append(f'<line x1="{x:g}" y1="{_TOP}" x2="{x:g}" y2="{bottom}" stroke="#d5dbe1"/>')
        if share in (0.0, 0.5, 1.0):
            anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
            parts.append(
                f'<text x="{x:g}" y="{bottom + 16}" text-anchor="{anchor}" font-size="11">{share * top:.3g}</text>'
            )
    for number, dot in enumerate(panel.dots):
        if dot.value is None:
            continue
        y = _TOP + (number + 0.5) * _ROW
        color = _FIRST if number == 0 else _OTHER
        if dot.ci95 is not None:
            low, high = (left + min(max(end / top, 0.0), 1.0) * _PANEL for end in dot.ci95)
            parts.append(
                f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" stroke="{color}" stroke-width="2"/>'
            )
        x = left + min(max(dot.value / top, 0.0), 1.0) * _PANEL
        parts.append(f'<circle cx="{x:.1f}" cy="{y:g}" r="4" fill="{color}"/>')
    return parts
