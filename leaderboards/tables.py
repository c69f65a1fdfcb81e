"""Leaderboard tables: one row per model, one column per benchmark and metric.

Runs of different benchmark versions never share a column, runs of different editions never share a table, and
a number that could not be scored stays empty: it is not 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["FORMATS", "ResultRow", "leaderboard_table", "read_results", "write_table"]

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One number of one run.

    Attributes:
        model: Name of the generator.
        benchmark: Benchmark name.
        benchmark_version: Its version.
        edition: ``"strict"`` or ``"paper"``.
        metric: Metric name.
        value: The number, or None where nothing could be scored.
        n_scored: Units behind the number.
        n_unscored: Units that could not be scored.
        higher_is_better: Direction.
        identity_sha256: Identity of the run.
    """

    model: str
    benchmark: str
    benchmark_version: int
    edition: str
    metric: str
    value: float | None
    n_scored: int
    n_unscored: int
    higher_is_better: bool
    identity_sha256: str

    @property
    def column(self) -> str:
        """Heading that keeps versions and editions apart, e.g. ``"shapes-box v1 strict: box_ap"``."""
        return f"{self.benchmark} v{self.benchmark_version} {self.edition}: {self.metric}"


def read_results(paths: Iterable[Path]) -> list[ResultRow]:
    """Reads results files.

    Args:
        paths: ``results.json`` files, or run folders that hold one.

    Returns:
        One row per number, in the order of the files.

    Raises:
        ValueError: If a file is unreadable, of another schema version, or holds a number that is not finite;
            names the file and the field.
    """
    rows: list[ResultRow] = []
    for path in paths:
        file = path / "results.json" if path.is_dir() else path
        rows.extend(_rows(file, _read(file)))
    return rows


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: unreadable ({error}); give a results.json or a finished run") from error
    if not isinstance(content, dict) or content.get("schema_version") != _SCHEMA_VERSION:
        raise ValueError(f"{file}: field schema_version: expected {_SCHEMA_VERSION}; score the run again")
    return content


def _rows(file: Path, content: dict[str, Any]) -> list[ResultRow]:
    rows = []
    try:
        for metric, record in content["metrics"].items():
            value = record["value"]
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{file}: field metrics.{metric}.value: {value} is not a finite number")
            rows.append(
                ResultRow(
                    model=str(content["model"]),
                    benchmark=str(content["benchmark"]),
                    benchmark_version=int(content["benchmark_version"]),
                    edition=str(content["edition"]),
                    metric=str(metric),
                    value=None if value is None else float(value),
                    n_scored=int(record["n_scored"]),
                    n_unscored=int(record["n_unscored"]),
                    higher_is_better=bool(record["higher_is_better"]),
                    identity_sha256=str(content["identity_sha256"]),
                )
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: field {error}: missing or of the wrong type; score the run again"
        ) from error
    return rows


def leaderboard_table(rows: Iterable[ResultRow]) -> pd.DataFrame:
    """Models in rows, numbers in columns, missing numbers as NaN.

    Args:
        rows: Numbers of any runs.

    Returns:
        The table, best model of the first column first.

    Raises:
        ValueError: If the runs are of more than one edition, or two runs of one model give the same column:
            their names must differ.
    """
    rows = list(rows)
    editions = {row.edition: row.benchmark for row in rows}
    if len(editions) > 1:
        named = " and ".join(f"{edition} ({editions[edition]})" for edition in sorted(editions))
        raise ValueError(f"the runs are of different editions: {named}; make one table for each edition")
    table: dict[str, dict[str, float]] = {}
    owners: dict[tuple[str, str], str] = {}
    directions: dict[str, bool] = {}
    for row in rows:
        owner = owners.setdefault((row.model, row.column), row.identity_sha256)
        if owner != row.identity_sha256:
            raise ValueError(f"model {row.model!r}: two runs of {row.column}; give them different names")
        directions.setdefault(row.column, row.higher_is_better)
        table.setdefault(row.model, {})[row.column] = math.nan if row.value is None else row.value
    frame = pd.DataFrame.from_dict(table, orient="index", columns=list(directions) or None)
    frame.index.name = "model"
    if directions:
        first = next(iter(directions))
        frame = frame.sort_values(first, ascending=not directions[first], kind="stable", na_position="last")
    return frame


def _markdown(frame: pd.DataFrame) -> str:
    heading = ["model", *map(str, frame.columns)]
    lines = [heading, ["---", *["---:"] * len(frame.columns)]]
    for model, values in frame.iterrows():
        cells = ["" if math.isnan(value) else f"{value:.3f}" for value in values]
        lines.append([str(model).replace("|", "\\|"), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "csv": lambda frame: str(frame.to_csv()),
    "markdown": _markdown,
}
"""Writers by format name."""


def write_table(frame: pd.DataFrame, table_format: str) -> str:
    """Writes a table as text.

    Args:
        frame: From `leaderboard_table`.
        table_format: A key of `FORMATS`.

    Raises:
        ValueError: If the format is unknown.
    """
    if table_format not in FORMATS:
        raise ValueError(f"unknown table format {table_format!r} (formats: {', '.join(FORMATS)})")
    return FORMATS[table_format](frame)
