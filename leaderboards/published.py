"""Numbers from papers and project pages, with their sources; never mixed with numbers measured here."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PUBLISHED", "PublishedNumber", "read_published"]

PUBLISHED = Path(__file__).with_name("published.csv")
"""The file that comes with the package."""


@dataclass(frozen=True, slots=True)
class PublishedNumber:
    """One number as its source gives it.

    Attributes:
        method: Name in the source.
        benchmark: Benchmark of the source; the same word does not make it a benchmark of this project.
        metric: Metric of the source.
        value: The number, in `unit`.
        unit: ``"%"``, ``"ratio"``, ... or empty for distances.
        higher_is_better: Direction.
        evaluator: Detector or evaluator that the source names.
        resolution: Image size as given.
        n_images: Number of images as given.
        source: Citation.
        source_url: Address, possibly empty.
        confidence: ``"seen_verbatim"`` or ``"seen_in_secondary_source"``.
    """

    method: str
    benchmark: str
    metric: str
    value: float
    unit: str
    higher_is_better: bool
    evaluator: str
    resolution: str
    n_images: str
    source: str
    source_url: str
    confidence: str


def read_published(path: Path = PUBLISHED) -> list[PublishedNumber]:
    """Reads published numbers.

    Args:
        path: A CSV file like the one that comes with the package.

    Returns:
        One entry per line, in order; several numbers for one method stay several entries.

    Raises:
        ValueError: If a line does not fit; names the file, the line and the field.
    """
    numbers = []
    with path.open(encoding="utf-8", newline="") as stream:
        for line, row in enumerate(csv.DictReader(stream), start=2):
            where = f"{path}: line {line}"
            try:
                direction = {"true": True, "false": False}[row["higher_is_better"]]
                value = float(row["value"])
                names = {key: row[key] for key in ("method", "benchmark", "metric", "source", "confidence")}
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{where}: field {error}: missing or no number") from error
            if not math.isfinite(value) or (row["unit"] == "%" and not 0 <= value <= 100):
                raise ValueError(f"{where}: field value: {value} is out of range")
            for key, text in names.items():
                if not text:
                    raise ValueError(f"{where}: field {key}: empty")
            numbers.append(
                PublishedNumber(
                    **names,
                    value=value,
                    unit=row["unit"],
                    higher_is_better=direction,
                    evaluator=row["detector_or_evaluator"],
                    resolution=row["resolution"],
                    n_images=row["n_images"],
                    source_url=row["source_url"],
                )
            )
    return numbers
