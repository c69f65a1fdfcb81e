"""Builds the report of two runs side by side on the same layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from instbench.errors import InputError
from instbench.reports.html.build import check_output, image_commands, write_page
from instbench.reports.html.entries import Entry, make_entries
from instbench.reports.html.gallery import gallery_section
from instbench.reports.html.markup import bar, escape, isolated, section, table
from instbench.reports.html.pictures import make_pictures
from instbench.reports.html.reading import RunData, read_run_data
from instbench.reports.html.sections import facts_section, interval_text
from instbench.reports.numbers import format_number
from instbench.reports.summary import format_value
from instbench.runs.identity import MUST_AGREE, FieldDifference, identity_differences
from instbench.runs.records import MetricRecord, SliceRecord

if TYPE_CHECKING:
    from instbench.statistics.comparison import Difference

__all__ = ["build_comparison"]

Tested: TypeAlias = "dict[tuple[str, str | None, str | None], Difference]"
"""Paired differences by number, slice and bin; no slice is the whole."""

_PAIRED = ("95 %", "adjusted p")


def build_comparison(first: Path, second: Path, output: Path) -> Path:
    """Writes the report of two scored runs on the same layouts as one HTML page.

    Args:
        first: A run folder.
        second: Another one; differences are its numbers less those of the first.
        output: The page to write.

    Returns:
        Path of the page.

    Raises:
        InputError: If a folder holds no scored run, or benchmark, edition, layouts, data or evaluators differ; names
            what differs.
    """
    output = check_output(output)
    runs = (read_run_data(first), read_run_data(second))
    differences = identity_differences(runs[0].run.identity, runs[1].run.identity)
    _refuse(first, second, runs, differences)
    labels = _labels(runs)
    keys = [layout.image_key for layout in runs[0].layouts]
    pictures, linked = make_pictures([(run.folder, keys) for run in runs], output)
    entries = make_entries(runs, pictures, [image_commands(run) for run in runs])
    tested, note = _tested(runs, labels)
    parts = (
        _numbers(runs, labels, tested, note) + _wins(entries, labels),
        _failures(runs, labels),
        _slices(runs, labels, tested),
        gallery_section(entries, labels),
        _differences(differences, labels),
        facts_section(runs[0], f"How {labels[0]} was made"),
        facts_section(runs[1], f"How {labels[1]} was made", "facts-2"),
    )
    title = f"{runs[0].run.identity.get('benchmark')}: {labels[0]} and {labels[1]}"
    lead = escape(f"Differences are {labels[1]} less {labels[0]}, on the same {len(keys)} layouts.")
    return write_page(output, title, lead, "".join(parts), entries, labels, linked=linked)


def _refuse(
    first: Path, second: Path, runs: Sequence[RunData], differences: Sequence[FieldDifference]
) -> None:
    wrong = [one for one in differences if one.field.split(".")[0] in MUST_AGREE]
    if wrong:
        listed = "; ".join(f"{one.field} ({_short(one.theirs)} and {_short(one.ours)})" for one in wrong)
        raise InputError(f"{first} and {second}: cannot be compared: {listed} differ")
    if [one.image_key for one in runs[0].layouts] != [one.image_key for one in runs[1].layouts]:
        raise InputError(f"{first} and {second}: cannot be compared: layouts.jsonl differ")


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def _labels(runs: Sequence[RunData]) -> tuple[str, str]:
    first, second = (run.run.model for run in runs)
    if first != second:
        return first, second
    names = [run.folder.root.resolve().name for run in runs]
    if names[0] == names[1]:
        names = ["first", "second"]
    return f"{first} ({names[0]})", f"{second} ({names[1]})"


def _numbers(runs: Sequence[RunData], labels: Sequence[str], tested: Tested, note: str) -> str:
    rows = []
    names = [name for name in runs[0].results.metrics if name in runs[1].results.metrics]
    for name in names:
        records = [run.results.metrics[name] for run in runs]
        cells = [_value_with_interval(record) for record in records]
        better = "higher" if records[0].higher_is_better else "lower"
        scored = " / ".join(str(record.n_scored) for record in records)
        first = f"<code>{escape(name)}</code>"
        paired = _paired(tested.get((name, None, None)), records[0].unit)
        rows.append((first, *cells, _difference(records), *paired, better, scored))
    headings = ("metric", *labels, "difference", *_PAIRED, "better", "scored")
    content = table(headings, rows, numbers=(1, 2, 3, 4, 5, 7))
    return section("numbers", "Numbers", content + f'<p class="note">{escape(note)}</p>')


def _tested(runs: Sequence[RunData], labels: Sequence[str]) -> tuple[Tested, str]:
    """Paired differences, and a line on them; none where the runs cannot be paired."""
    from instbench.statistics.comparison import compare_runs

    try:
        found = compare_runs([run.folder.root for run in runs], labels=labels, slices=True)
    except InputError as error:
        return {}, f"Differences without intervals: {error}."
    note = (
        "Intervals and p values of differences: paired over images, Holm's correction over all numbers, and over all "
        "slices."
    )
    tested = {(row.metric, row.slice, row.bin): row.differences[1] for row in found.rows}
    return {key: one for key, one in tested.items() if one is not None}, note


def _paired(found: Difference | None, unit: str = "fraction") -> tuple[str, str]:
    """Cells below `_PAIRED`."""
    if found is None:
        return "-", "-"
    low, high = (format_number(end, unit, signed=True) for end in found.ci95)
    return f"{low} to {high}", "&lt;0.001" if found.p_adjusted < 0.001 else f"{found.p_adjusted:.3f}"


def _value_with_interval(record: MetricRecord) -> str:
    interval = "" if record.ci95 is None else f" ({interval_text(record.ci95, record.unit)})"
    return escape(format_value(record) + interval)


def _difference(records: Sequence[MetricRecord | SliceRecord]) -> str:
    first, second = (record.value for record in records)
    unit = getattr(records[0], "unit", "fraction")  # bins hold fractions
    return "-" if first is None or second is None else format_number(second - first, unit, signed=True)


def _wins(entries: Sequence[Entry], labels: Sequence[str]) -> str:
    pairs = [(entry.views[0].quality, entry.views[1].quality) for entry in entries]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    wins = sum(b > a for a, b in known), sum(a > b for a, b in known)
    text = (
        f"Image by image (mean overlap or hit): {labels[1]} is better on {wins[0]}, {labels[0]} on {wins[1]}, "
        f"equal on {len(known) - sum(wins)}."
    )
    return f"<p>{isolated(text)}</p>"


def _failures(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    first, second = (run.results.failures for run in runs)
    if first is None or second is None:
        return ""
    rows = []
    totals = [max(sum(record.counts.values()), 1) for record in (first, second)]
    for kind in dict.fromkeys([*first.counts, *second.counts]):
        counts = [record.counts.get(kind, 0) for record in (first, second)]
        style = "" if kind == "correct" else "wrong"
        bars = "".join(bar(count / total, kind=style) for count, total in zip(counts, totals, strict=True))
        name = f'<span class="kind" data-kind="{escape(kind)}">{escape(kind)}</span>'
        rows.append((name, bars, *map(str, counts), f"{counts[1] - counts[0]:+d}"))
    extra = [first.n_extra, second.n_extra]
    rows.append(("nobody asked for", "", *map(str, extra), f"{extra[1] - extra[0]:+d}"))
    headings = ("kind", "share of all", *labels, "difference")
    return section("failures", "What went wrong", table(headings, rows, numbers=(2, 3, 4)))


def _slices(runs: Sequence[RunData], labels: Sequence[str], tested: Tested) -> str:
    parts = []
    first, second = (run.results.slices for run in runs)
    for number in first:
        for name, bins in first[number].items():
            others = second.get(number, {}).get(name, {})
            rows = []
            for label in (one for one in bins if one in others):
                records = [bins[label], others[label]]
                bars = "".join(bar(one.value, getattr(one, "ci95", None)) for one in records)
                values = ["-" if one.value is None else f"{one.value:.3f}" for one in records]
                paired = _paired(tested.get((number, name, label)))
                scored = str(records[0].n_scored)
                rows.append((isolated(label), bars, *values, _difference(records), *paired, scored))
            headings = (name.replace("_", " "), "0 to 1", *labels, "difference", *_PAIRED, "n")
            title = f"<h3>{escape(number.replace('_', ' '))} by {escape(name.replace('_', ' '))}</h3>"
            parts.append(
                f'<div class="slice">{title}{table(headings, rows, numbers=(2, 3, 4, 5, 6, 7))}</div>'
            )
    if not parts:
        return ""
    note = f'<p class="note">Upper bar: {isolated(labels[0])}; lower bar: {isolated(labels[1])}.</p>'
    return section("slices", "Slices", note + f'<div class="slices wide">{"".join(parts)}</div>')


def _differences(differences: Sequence[FieldDifference], labels: Sequence[str]) -> str:
    rows = [
        (f"<code>{escape(one.field)}</code>", isolated(_text(one.theirs)), isolated(_text(one.ours)))
        for one in differences
    ]
    content = table(("field", *labels), rows) if rows else "<p>Nothing: the runs have one identity.</p>"
    return section("differ", "What differs between the runs", content)


def _text(value: object) -> str:
    return "-" if value is None else str(value)
