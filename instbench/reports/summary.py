"""Tables of results for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from instbench.reports.numbers import format_number
from instbench.runs.records import MetricRecord, ResultsRecord, SliceRecord

__all__ = [
    "comparison_table",
    "failures_table",
    "format_interval",
    "format_value",
    "results_table",
    "slices_table",
]


def format_value(record: MetricRecord | None) -> str:
    """Formats a number; a dash where there is none."""
    if record is None or record.value is None:
        return "-"
    return format_number(record.value, record.unit)


def format_interval(record: MetricRecord | SliceRecord | None) -> str:
    """Formats the 95 % interval of a number; empty where there is none."""
    if record is None or record.ci95 is None:
        return ""
    low, high = (format_number(end, getattr(record, "unit", "fraction")) for end in record.ci95)
    return f"[{low}, {high}]"


def _direction(record: MetricRecord) -> str:
    return "higher" if record.higher_is_better else "lower"


def results_table(results: Sequence[ResultsRecord]) -> Table:
    """One row per number of the given runs.

    Args:
        results: Results of runs.

    Returns:
        A table with benchmark, model, metric, value, direction and how much was scored.
    """
    table = Table(title="Results")
    table.add_column("benchmark")
    table.add_column("model")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("better")
    table.add_column("scored", justify="right", no_wrap=True)
    table.add_column("not scored")
    for result in results:
        for position, (name, record) in enumerate(result.metrics.items()):
            first = position == 0
            reasons = "; ".join(f"{count} {reason}" for reason, count in record.reasons.items())
            table.add_row(
                f"{result.benchmark} v{result.benchmark_version} {result.edition}" if first else "",
                result.model if first else "",
                name,
                format_value(record),
                format_interval(record),
                _direction(record),
                str(record.n_scored),
                reasons or str(record.n_unscored or ""),
            )
        table.add_section()
    return table


def failures_table(results: Sequence[ResultsRecord]) -> Table | None:
    """What went wrong: kinds that occur, with counts and what each costs in AP50; None if no run says so."""
    known = [result for result in results if result.failures is not None]
    if not known:
        return None
    table = Table(title="What went wrong")
    table.add_column("benchmark")
    table.add_column("model")
    table.add_column("kind", no_wrap=True)
    table.add_column("objects", justify="right")
    table.add_column("share", justify="right")
    table.add_column("AP50 gained if put right", justify="right")
    for result in known:
        failures = result.failures
        if failures is None:  # narrowing
            continue
        total = sum(failures.counts.values())
        seen = [(kind, count) for kind, count in failures.counts.items() if count]
        for position, (kind, count) in enumerate(seen):
            gain = failures.ap50_gains.get(kind)
            table.add_row(
                result.benchmark if position == 0 else "",
                result.model if position == 0 else "",
                kind,
                str(count),
                f"{count / total:.1%}" if total else "-",
                "" if gain is None else f"{gain:+.3f}",
            )
        if failures.n_extra:
            table.add_row("", "", "nobody asked for", str(failures.n_extra), "", "")
        table.add_section()
    return table


def slices_table(results: Sequence[ResultsRecord]) -> Table | None:
    """Every number in every bin; None if no run has any."""
    table = Table(title="Slices")
    for heading in ("benchmark", "number", "slice", "bin"):
        table.add_column(heading)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("scored", justify="right", no_wrap=True)
    for result in results:
        for number, slices in result.slices.items():
            for name, bins in slices.items():
                for label, record in bins.items():
                    value = "-" if record.value is None else f"{record.value:.3f}"
                    row = (result.benchmark, number, name.replace("_", " "), label)
                    table.add_row(*row, value, format_interval(record), str(record.n_scored))
                table.add_section()
    return table if table.row_count else None


def comparison_table(
    columns: Mapping[str, Mapping[str, ResultsRecord]], *, ceiling: str | None = None, title: str = ""
) -> Table:
    """Benchmarks and metrics in rows, models in columns.

    Args:
        columns: Results by column heading, then by benchmark name; a cell has the number and, below it, its interval.
        ceiling: Heading of a column whose one benchmark holds every metric (the real images): its
            numbers stand beside each benchmark's.
        title: Title of the table.

    Returns:
        The table.
    """
    table = Table(title=title)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    table.add_column("better")
    shown: dict[str, list[str]] = {}
    for heading, results in columns.items():
        if heading != ceiling:
            for benchmark, result in results.items():
                names = shown.setdefault(benchmark, [])
                names += [name for name in result.metrics if name not in names]
    for benchmark, names in shown.items():
        for position, name in enumerate(names):
            cells = [
                _cell(results, benchmark, name, heading == ceiling) for heading, results in columns.items()
            ]
            known = next(record for record in cells if record is not None)
            values = [
                "\n".join(filter(None, (format_value(record), format_interval(record)))) for record in cells
            ]
            table.add_row(benchmark if position == 0 else "", name, *values, _direction(known))
        table.add_section()
    return table


def _cell(
    results: Mapping[str, ResultsRecord], benchmark: str, metric: str, is_ceiling: bool
) -> MetricRecord | None:
    if benchmark in results:
        return results[benchmark].metrics.get(metric)
    if is_ceiling and results:
        return next(iter(results.values())).metrics.get(metric)
    return None
