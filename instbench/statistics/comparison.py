"""Runs side by side: numbers with intervals, paired differences against a baseline, ranks with ties, win rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from instbench.errors import InputError
from instbench.execution.slices import slice_samples, value_samples
from instbench.runs.identity import identity_differences
from instbench.runs.records import ResultsRecord, RunRecord
from instbench.runs.store import RunFolder
from instbench.statistics.intervals import (
    PairedDifference,
    holm,
    interval,
    paired_difference,
    wilson_interval,
)
from instbench.statistics.ranks import rank_groups
from instbench.statistics.resampling import resample_weights
from instbench.statistics.samples import RatioSamples, Samples
from instbench.statistics.store import read_samples

__all__ = ["Comparison", "ComparisonRow", "Difference", "Estimate", "WinRate", "compare_runs"]

SIGNIFICANT = 0.05
_MUST_AGREE = (
    *("benchmark", "benchmark_version", "edition", "protocol_sha256", "dataset", "layouts_sha256"),
    *("layouts_count", "conditions", "canvas_size", "seed", "evaluators"),
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of one run; None where nothing was scored."""

    value: float | None
    ci95: tuple[float, float] | None
    n_scored: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A run minus the baseline.

    Attributes:
        value: The difference.
        ci95: Its interval.
        p_value: Two-sided.
        p_adjusted: After Holm's correction over the whole comparison.
    """

    value: float
    ci95: tuple[float, float]
    p_value: float
    p_adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the adjusted p value is below 0.05."""
        return self.p_adjusted < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class WinRate:
    """On how many images a run does better than the baseline.

    Attributes:
        wins: Images on which it is better.
        ties: Images on which both are the same.
        losses: Images on which it is worse.
        rate: Wins plus half of the ties, as a share.
        ci95: Wilson's interval of the rate.
    """

    wins: int
    ties: int
    losses: int
    rate: float
    ci95: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One number of all runs.

    Attributes:
        benchmark: Benchmark name.
        metric: Metric name.
        unit: "fraction", "distance" or "score".
        higher_is_better: Direction.
        slice: Name of the slice, None for the whole.
        bin: Its bin.
        estimates: One per run.
        differences: One per run, None for the baseline and where a number is missing.
        groups: Letters per run: runs that share one are not told apart.
        win_rates: One per run, None for the baseline and for numbers that images do not have.
    """

    benchmark: str
    metric: str
    unit: str
    higher_is_better: bool
    slice: str | None
    bin: str | None
    estimates: tuple[Estimate, ...]
    differences: tuple[Difference | None, ...]
    groups: tuple[str, ...]
    win_rates: tuple[WinRate | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of runs on one benchmark.

    Attributes:
        labels: Names of the runs.
        baseline: Position of the baseline.
        benchmark: Benchmark name.
        benchmark_version: Its version.
        edition: "strict" or "paper".
        num_images: Layouts.
        rows: The numbers, then those of the slices.
    """

    labels: tuple[str, ...]
    baseline: int
    benchmark: str
    benchmark_version: int
    edition: str
    num_images: int
    rows: tuple[ComparisonRow, ...]


@dataclass(frozen=True)
class _Run:
    folder: Path
    record: RunRecord
    results: ResultsRecord
    keys: tuple[str, ...]
    metrics: Mapping[str, Samples]


def compare_runs(
    folders: Sequence[Path],
    *,
    labels: Sequence[str] | None = None,
    baseline: int = 0,
    slices: bool = False,
    objects: bool = False,
) -> Comparison:
    """Compares runs on the same layouts, seeds and evaluators.

    Args:
        folders: Run folders, at least two.
        labels: Names; None takes the models', with the folders' where they would repeat.
        baseline: Which run the others are compared with.
        slices: Also compare every number in every bin.
        objects: Also compare means over objects that the benchmark does not list; unlike AP, every image has them.

    Raises:
        InputError: If a run is not scored, or they differ in benchmark, edition, layouts, evaluators or seed; says in
            what.
    """
    if len(folders) < 2:
        raise InputError("compare: one run given; give two or more")
    if not 0 <= baseline < len(folders):
        raise InputError(f"--baseline {baseline}: there are {len(folders)} runs, numbered from 0")
    runs = [_read(folder) for folder in folders]
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    names = _labels(runs, labels)
    weights = resample_weights(len(runs[0].keys))
    family: list[Judged] = []
    for metric, record in runs[0].results.metrics.items():
        estimates = []
        for run in runs:
            one = run.results.metrics.get(metric)
            estimates.append(
                Estimate(None, None, 0) if one is None else Estimate(one.value, one.ci95, one.n_scored)
            )
        benchmark, unit, better = runs[0].results.benchmark, record.unit, record.higher_is_better
        row = ComparisonRow(benchmark, metric, unit, better, None, None, tuple(estimates), (), ())
        family.append((row, [run.metrics.get(metric) for run in runs]))
    if objects:
        family += _object_rows(runs, weights)
    rows = _judged(family, weights, baseline)
    if slices:
        rows += _slice_rows(runs, weights, baseline)
    first = runs[0].results
    return Comparison(
        names,
        baseline,
        first.benchmark,
        first.benchmark_version,
        first.edition,
        len(runs[0].keys),
        tuple(rows),
    )


def _read(folder: Path) -> _Run:
    run = RunFolder(folder)
    record = run.read_run()
    if not run.results_json.is_file():
        raise InputError(f"{folder}: is not scored yet; run `instbench score {folder}`")
    results = run.read_results()
    if results.identity_sha256 != record.identity_sha256:
        raise InputError(f"{folder}: results.json is of another run than run.json; score it again")
    samples = read_samples(run.samples_npz)
    return _Run(folder, record, results, samples.image_keys, samples.metrics)


def _check_comparable(first: _Run, other: _Run) -> None:
    mine, theirs = ({name: run.record.identity.get(name) for name in _MUST_AGREE} for run in (first, other))
    differing = identity_differences(mine, theirs)
    if differing:
        listed = "; ".join(
            f"{one.field} ({_short(one.theirs)} and {_short(one.ours)})" for one in differing[:6]
        )
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise InputError(
            f"{first.folder} and {other.folder} cannot be compared; they differ in {listed}{more}"
        )
    if first.keys != other.keys:
        raise InputError(
            f"{first.folder} and {other.folder}: samples.npz is of other layouts; score them again"
        )


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def _labels(runs: Sequence[_Run], labels: Sequence[str] | None) -> tuple[str, ...]:
    if labels is not None:
        if len(labels) != len(runs) or len(set(labels)) != len(runs):
            raise InputError(f"--labels: give {len(runs)} different names")
        return tuple(labels)
    names = [run.record.model for run in runs]
    if len(set(names)) < len(names):
        names = [
            f"{name} ({run.folder.parent.name}/{run.folder.name})"
            for name, run in zip(names, runs, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return tuple(names)


Judged = tuple[ComparisonRow, Sequence[Samples | None]]


def _judged(family: Sequence[Judged], weights: NDArray[np.float32], baseline: int) -> list[ComparisonRow]:
    """Rows with differences, groups and win rates; all pairs of all rows are one family for Holm's correction."""
    pairs: dict[tuple[int, int, int], PairedDifference] = {}
    for number, (_, samples) in enumerate(family):
        for one, first in enumerate(samples):
            for other in range(one + 1, len(samples)):
                second = samples[other]
                found = None if first is None or second is None else paired_difference(first, second, weights)
                if found is not None:
                    pairs[number, one, other] = found
    corrected = holm([pair.p_value for pair in pairs.values()])
    adjusted = {key: p_value for key, p_value in zip(pairs, corrected, strict=True) if p_value is not None}
    rows = []
    for number, (row, samples) in enumerate(family):

        def differ(one: int, other: int, number: int = number) -> bool:
            return adjusted.get((number, min(one, other), max(one, other)), 1.0) < SIGNIFICANT

        differences: list[Difference | None] = []
        for place in range(len(samples)):
            key = (number, min(place, baseline), max(place, baseline))
            pair = pairs.get(key)
            if pair is None or place == baseline:
                differences.append(None)
                continue
            sign = 1.0 if place > baseline else -1.0
            low, high = sorted((sign * pair.ci95[0], sign * pair.ci95[1]))
            differences.append(Difference(sign * pair.value, (low, high), pair.p_value, adjusted[key]))
        values = [one.value for one in row.estimates]
        groups = rank_groups(values, differ, higher_is_better=row.higher_is_better)
        wins = tuple(
            None if place == baseline else _win_rate(row, samples[baseline], one)
            for place, one in enumerate(samples)
        )
        rows.append(replace(row, differences=tuple(differences), groups=tuple(groups), win_rates=wins))
    return rows


def _win_rate(row: ComparisonRow, baseline: Samples | None, run: Samples | None) -> WinRate | None:
    if not isinstance(baseline, RatioSamples) or not isinstance(run, RatioSamples):
        return None
    change = run.per_image() - baseline.per_image()
    change = change[np.isfinite(change)] * (1 if row.higher_is_better else -1)
    if not len(change):
        return None
    wins, losses = int((change > 1e-12).sum()), int((change < -1e-12).sum())
    ties = len(change) - wins - losses
    rate = (wins + ties / 2) / len(change)
    return WinRate(wins, ties, losses, rate, wilson_interval(rate, len(change)))


def _object_tables(runs: Sequence[_Run]) -> list[list[dict[str, Any]]]:
    """The rows per requested object of each run."""
    return [pq.read_table(RunFolder(run.folder).instances_parquet).to_pylist() for run in runs]


def _estimated(samples: Samples | None, weights: NDArray[np.float32]) -> Estimate:
    if not isinstance(samples, RatioSamples):
        return Estimate(None, None, 0)
    return Estimate(samples.value(), interval(samples, weights), int(samples.counts.sum()))


def _object_rows(runs: Sequence[_Run], weights: NDArray[np.float32]) -> list[Judged]:
    """Means over objects that the benchmark does not list, such as the IoU of boxes; images have them, AP they lack."""
    tables = [value_samples(rows, run.keys) for rows, run in zip(_object_tables(runs), runs, strict=True)]
    listed = runs[0].results.metrics
    result: list[Judged] = []
    for name in tables[0]:
        if name not in listed:
            samples = [table.get(name) for table in tables]
            estimates = tuple(_estimated(one, weights) for one in samples)
            benchmark = runs[0].results.benchmark
            row = ComparisonRow(benchmark, name, "fraction", True, None, None, estimates, (), ())
            result.append((row, samples))
    return result


def _slice_rows(runs: Sequence[_Run], weights: NDArray[np.float32], baseline: int) -> list[ComparisonRow]:
    tables = [slice_samples(rows, run.keys) for rows, run in zip(_object_tables(runs), runs, strict=True)]
    family: list[Judged] = []
    for name, slice_name, label in tables[baseline]:
        samples = [table.get((name, slice_name, label)) for table in tables]
        estimates = tuple(_estimated(one, weights) for one in samples)
        benchmark = runs[0].results.benchmark
        row = ComparisonRow(benchmark, name, "fraction", True, slice_name, label, estimates, (), ())
        family.append((row, samples))
    return _judged(family, weights, baseline)
