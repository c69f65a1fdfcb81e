"""Comparisons as tables: terminal, CSV, Markdown, LaTeX, JSON, HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from instbench.reports.numbers import format_number
from instbench.statistics.comparison import Comparison, ComparisonRow, Difference, Estimate, WinRate

__all__ = ["FORMATS", "comparison_terminal", "write_comparison"]

_NOTE = (
    "Difference to the baseline, paired by image; 95 % intervals; p after Holm's correction. Runs that share a letter "
    "are not told apart."
)


def _estimate(one: Estimate, unit: str) -> str:
    if one.value is None:
        return "-"
    text = format_number(one.value, unit)
    if one.ci95 is None:
        return text
    return f"{text} [{format_number(one.ci95[0], unit)}, {format_number(one.ci95[1], unit)}]"


def _difference(one: Difference | None, unit: str) -> str:
    if one is None:
        return ""
    low, high = (format_number(end, unit, signed=True) for end in one.ci95)
    return f"{format_number(one.value, unit, signed=True)} [{low}, {high}]"


def _p_value(one: Difference | None) -> str:
    if one is None:
        return ""
    return "<0.001" if one.p_adjusted < 0.001 else f"{one.p_adjusted:.3f}"


def _wins(one: WinRate | None) -> str:
    if one is None:
        return ""
    return f"{one.rate:.3f} [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}] ({one.wins}/{one.ties}/{one.losses})"


def _name(row: ComparisonRow) -> str:
    return row.metric if row.slice is None else f"{row.metric}, {row.slice.replace('_', ' ')}: {row.bin}"


def _grid(comparison: Comparison, win_rate: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and cells; one line per number and run."""
    heading = ["metric", "better", "model", "value", "group", "difference", "p"] + ["win rate"] * win_rate
    lines = []
    for row in comparison.rows:
        for place, label in enumerate(comparison.labels):
            line = [
                _name(row) if place == 0 else "",
                ("higher" if row.higher_is_better else "lower") if place == 0 else "",
                label,
                _estimate(row.estimates[place], row.unit),
                row.groups[place],
                _difference(row.differences[place], row.unit),
                _p_value(row.differences[place]),
            ]
            lines.append(line + ([_wins(row.win_rates[place])] if win_rate else []))
    return heading, lines


def _title(comparison: Comparison) -> str:
    name = f"{comparison.benchmark} v{comparison.benchmark_version} {comparison.edition}"
    seeds = comparison.seeds
    repeats = f" x {len(seeds)} repeats (seeds {', '.join(map(str, seeds))})" if len(seeds) > 1 else ""
    baseline = comparison.labels[comparison.baseline]
    return f"{name}, {comparison.num_images} layouts{repeats}, baseline {baseline}"


def comparison_terminal(comparison: Comparison, *, win_rate: bool = False) -> Table:
    """The comparison for the terminal.

    Args:
        comparison: The comparison.
        win_rate: Add on how many images a run does better: wins, ties and losses.
    """
    table = Table(title=escape(_title(comparison)), caption=_NOTE)
    heading, lines = _grid(comparison, win_rate)
    for name in heading:
        table.add_column(name, no_wrap=name in ("value", "p", "group"))
    for number, line in enumerate(lines, 1):
        table.add_row(*map(escape, line))
        if number % len(comparison.labels) == 0:
            table.add_section()
    return table


def _csv(comparisons: Sequence[Comparison], win_rate: bool) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [
        "benchmark",
        "version",
        "edition",
        "repeats",
        "metric",
        "slice",
        "bin",
        "model",
        "value",
        "ci_low",
        "ci_high",
    ]
    names += ["n_scored", "group", "difference", "difference_low", "difference_high", "p_value", "p_adjusted"]
    writer.writerow(names + ["win_rate", "wins", "ties", "losses"] * win_rate)
    for one in comparisons:
        for row in one.rows:
            for label, estimate, group, difference, wins in zip(
                one.labels, row.estimates, row.groups, row.differences, row.win_rates, strict=True
            ):
                cells: list[object] = [one.benchmark, one.benchmark_version, one.edition, len(one.seeds)]
                cells += [
                    row.metric,
                    row.slice,
                    row.bin,
                    label,
                    estimate.value,
                    *(estimate.ci95 or (None, None)),
                ]
                cells += [estimate.n_scored, group]
                if difference is None:
                    cells += [None] * 5
                else:
                    cells += [difference.value, *difference.ci95, difference.p_value, difference.p_adjusted]
                if win_rate:
                    cells += [None] * 4 if wins is None else [wins.rate, wins.wins, wins.ties, wins.losses]
                writer.writerow(["" if cell is None else _safe_cell(cell) for cell in cells])
    return stream.getvalue()


def _safe_cell(cell: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _markdown(comparisons: Sequence[Comparison], win_rate: bool) -> str:
    parts = []
    for one in comparisons:
        heading, lines = _grid(one, win_rate)
        table = [heading, ["---"] * len(heading), *lines]
        text = "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in table)
        parts.append(f"**{_markdown_cell(_title(one))}**\n\n{text}\n\n{_NOTE}\n")
    return "\n".join(parts)


def _markdown_cell(text: str) -> str:
    return html.escape(text.replace("|", "\\|").replace("\n", " "), quote=False)


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
}


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))


def _latex(comparisons: Sequence[Comparison], win_rate: bool) -> str:
    parts = []
    for one in comparisons:
        heading, lines = _grid(one, win_rate)
        rows = [" & ".join(map(_latex_cell, line)) + " \\\\" for line in [heading, *lines]]
        parts.append(
            "\n".join(
                [
                    f"% {' '.join(_title(one).split())}",
                    f"\\begin{{tabular}}{{{'l' * len(heading)}}}",
                    "\\hline",
                    rows[0],
                    "\\hline",
                    *rows[1:],
                    "\\hline",
                    "\\end{tabular}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _json(comparisons: Sequence[Comparison], win_rate: bool) -> str:
    content = [asdict(one) for one in comparisons]
    if not win_rate:
        for one in content:
            for row in one["rows"]:
                del row["win_rates"]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


_STYLE = (
    "body{font:16px system-ui,sans-serif;margin:1rem;color-scheme:light dark}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #8884}div{overflow-x:auto}"
)


def _html(comparisons: Sequence[Comparison], win_rate: bool) -> str:
    parts = []
    for one in comparisons:
        heading, lines = _grid(one, win_rate)
        head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in heading)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
        )
        parts.append(
            f"<h2>{html.escape(_title(one))}</h2><div><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width"><title>Comparison</title>'
        f"<style>{_STYLE}</style><h1>Comparison</h1>{''.join(parts)}<p>{html.escape(_NOTE)}</p></html>\n"
    )


FORMATS: dict[str, Callable[[Sequence[Comparison], bool], str]] = {
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
    "json": _json,
    "html": _html,
}
"""Writers by format name."""


def write_comparison(comparisons: Sequence[Comparison], table_format: str, *, win_rate: bool = False) -> str:
    """Writes comparisons as text.

    Args:
        comparisons: One per benchmark.
        table_format: A key of `FORMATS`.
        win_rate: Add the win rates.
    """
    return FORMATS[table_format](comparisons, win_rate)
