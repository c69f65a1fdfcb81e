"""Ablations as Markdown, CSV and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from instbench.execution.ablation import Answer, Number
from instbench.reports.dot_plot import Dot, Panel, dot_plot
from instbench.reports.numbers import format_number
from instbench.runs.atomic import write_bytes

__all__ = ["ablation_csv", "ablation_markdown", "ablation_plot", "write_answers"]

_COLUMNS = (
    *("question", "benchmark", "metric", "variant", "label", "value", "ci95_low", "ci95_high", "n_scored"),
    *("unit", "higher_is_better", "difference", "difference_ci95_low", "difference_ci95_high", "p_adjusted"),
)


def _with_interval(
    value: float | None, ci95: tuple[float, float] | None, unit: str, *, sign: bool = False
) -> str:
    if value is None:
        return "-"
    text = format_number(value, unit, signed=sign)
    if ci95 is None:
        return text
    return (
        f"{text} [{format_number(ci95[0], unit, signed=sign)}, {format_number(ci95[1], unit, signed=sign)}]"
    )


def _apart(number: Number) -> str:
    """The difference of a cell; bold where the adjusted p value is below 0.05."""
    apart = number.difference
    if apart is None:
        return "-"
    text = _with_interval(apart.value, apart.ci95, number.unit, sign=True)
    if apart.p_adjusted is None:
        return text
    p = "p < 0.001" if apart.p_adjusted < 0.001 else f"p = {apart.p_adjusted:.3f}"
    return f"**{text}**, {p}" if apart.p_adjusted < 0.05 else f"{text}, {p}"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _columns(answer: Answer) -> dict[tuple[str, str], list[Number]]:
    """The numbers by benchmark and metric, variants in order."""
    columns: dict[tuple[str, str], list[Number]] = {}
    for one in answer.numbers:
        columns.setdefault((one.benchmark, one.metric), []).append(one)
    return columns


def ablation_markdown(answer: Answer) -> str:
    """The tables of a question: numbers, and differences from the first variant, with intervals where there are any."""
    columns = _columns(answer)
    labels = [_plain(variant.label or variant.name) for variant in answer.question.variants]
    several = len({benchmark for benchmark, _ in columns}) > 1
    heads = [
        (f"{benchmark}: {metric}" if several else metric)
        + ("" if numbers[0].higher_is_better else " (lower is better)")
        for (benchmark, metric), numbers in columns.items()
    ]
    benchmarks = ", ".join(dict.fromkeys(benchmark for benchmark, _ in columns))
    lines = [
        f"### {_plain(answer.question.title)}",
        "",
        f"`--question {answer.question.name}`: {benchmarks}, {answer.layouts} layouts a run, [95 % intervals].",
        "",
        f"| | {' | '.join(heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    for row, label in enumerate(labels):
        numbers = [column[row] for column in columns.values()]
        cells = [_with_interval(one.value, one.ci95, one.unit) for one in numbers]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", f"| minus *{labels[0]}* | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for row, label in enumerate(labels[1:], start=1):
        cells = [_apart(column[row]) for column in columns.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def ablation_csv(answer: Answer) -> str:
    """The same as CSV, unrounded; what is not known is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in answer.numbers:
        apart = one.difference
        between = (apart.ci95 if apart else None) or (None, None)
        writer.writerow(
            (
                *(answer.question.name, one.benchmark, one.metric, one.variant, one.label, one.value),
                *(one.ci95 or (None, None)),
                *(one.n_scored, one.unit, one.higher_is_better),
                *(apart.value if apart else None, *between, apart.p_adjusted if apart else None),
            )
        )
    return stream.getvalue()


def ablation_plot(answer: Answer) -> str:
    """The same as an SVG: a panel per number (an arrow down where lower is better), a row per variant."""
    columns = _columns(answer)
    several = len({benchmark for benchmark, _ in columns}) > 1
    panels = [
        Panel(
            (f"{benchmark.removeprefix('shapes-')}: {metric}" if several else metric)
            + ("" if numbers[0].higher_is_better else " \u2193"),
            tuple(Dot(one.value, one.ci95) for one in numbers),
            top=1.0 if numbers[0].unit == "fraction" else None,
        )
        for (benchmark, metric), numbers in columns.items()
    ]
    rows = [variant.label or variant.name for variant in answer.question.variants]
    return dot_plot(answer.question.title, rows, panels)


def write_answers(answers: Sequence[Answer], output: Path) -> list[Path]:
    """Writes `<question>.md`, `.csv` and `.svg` into a folder and returns the paths."""
    paths = []
    for one in answers:
        for ending, text in (
            ("md", ablation_markdown(one)),
            ("csv", ablation_csv(one)),
            ("svg", ablation_plot(one)),
        ):
            path = output / f"{one.question.name}.{ending}"
            write_bytes(path, text.encode())
            paths.append(path)
    return paths
