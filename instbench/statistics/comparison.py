"""Runs side by side: numbers with intervals, paired differences against a baseline, ranks with ties, win rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from instbench.errors import InputError
from instbench.execution.slices import slice_samples, value_samples
from instbench.statistics.compared import ComparedModel, model_labels, read_models
from instbench.statistics.intervals import (
    PairedDifference,
    holm,
    interval,
    paired_difference,
    wilson_interval,
)
from instbench.statistics.ranks import rank_groups
from instbench.statistics.resampling import Resamples, draw_resamples
from instbench.statistics.samples import RatioSamples, Samples

__all__ = ["Comparison", "ComparisonRow", "Difference", "Estimate", "WinRate", "compare_runs"]

SIGNIFICANT = 0.05


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
        ci95: Interval of the rate.
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
        seeds: Seeds of the repeats of each layout; one where every layout was drawn once.
        rows: The numbers, then those of the slices.
    """

    labels: tuple[str, ...]
    baseline: int
    benchmark: str
    benchmark_version: int
    edition: str
    num_images: int
    seeds: tuple[int, ...]
    rows: tuple[ComparisonRow, ...]


def compare_runs(
    folders: Sequence[Path | Sequence[Path]],
    *,
    labels: Sequence[str] | None = None,
    baseline: int = 0,
    slices: bool = False,
    objects: bool = False,
    metrics: Sequence[str] | None = None,
    addresses: Mapping[Path, str] | None = None,
) -> Comparison:
    """Compares runs on the same layouts, seeds and evaluators.

    Args:
        folders: Run folders; or in place of one, the folders of several runs of one model that differ
            in the seed alone, which count as repeats.
        labels: Names; None takes the models', with the folders' where they would repeat.
        baseline: Which model the others are compared with.
        slices: Also compare every number in every bin.
        objects: Also compare means over objects that the benchmark does not list; unlike AP, every image has them.
        metrics: Numbers of the benchmark to compare; None takes all.
        addresses: What to call folders that are copies of runs elsewhere.

    Raises:
        InputError: If a run is not scored, or they differ in benchmark, edition, layouts, evaluators or seeds; says
            in what.
    """
    if not 0 <= baseline < len(folders):
        raise InputError(f"--baseline {baseline}: there are {len(folders)} runs, numbered from 0")
    models = read_models([[one] if isinstance(one, Path) else list(one) for one in folders])
    first = models[0].runs[0]
    resamples = draw_resamples(len(first.keys))
    family: list[Judged] = []
    for metric in first.results.metrics if metrics is None else metrics:
        record = first.results.metrics[metric]
        samples = [model.samples(metric) for model in models]
        estimates = tuple(
            _metric_estimate(model, metric, one, resamples)
            for model, one in zip(models, samples, strict=True)
        )
        unit, better = record.unit, record.higher_is_better
        family.append(
            (
                ComparisonRow(first.results.benchmark, metric, unit, better, None, None, estimates, (), ()),
                samples,
            )
        )
    if objects:
        family += _object_rows(models, resamples)
    rows = _judged(family, resamples, baseline)
    if slices:
        rows += _slice_rows(models, resamples, baseline)
    return Comparison(
        labels=model_labels(models, labels, addresses),
        baseline=baseline,
        benchmark=first.results.benchmark,
        benchmark_version=first.results.benchmark_version,
        edition=first.results.edition,
        num_images=len(first.keys),
        seeds=models[0].seeds,
        rows=tuple(rows),
    )


def _metric_estimate(
    model: ComparedModel, metric: str, samples: Samples | None, resamples: Resamples
) -> Estimate:
    """The number of a run as it stands in its results; of several repeats their common one."""
    records = [run.results.metrics.get(metric) for run in model.runs]
    known = [record for record in records if record is not None and record.value is not None]
    if len(known) < len(records):
        return Estimate(None, None, 0)
    count = sum(record.n_scored for record in known)
    if len(known) == 1:
        return Estimate(known[0].value, known[0].ci95, count)
    if samples is None:
        return Estimate(float(np.mean([record.value for record in known])), None, count)
    return Estimate(
        samples.value(), interval(samples, resamples, fraction=known[0].unit == "fraction"), count
    )


Judged = tuple[ComparisonRow, Sequence[Samples | None]]


def _judged(family: Sequence[Judged], resamples: Resamples, baseline: int) -> list[ComparisonRow]:
    """Rows with differences, groups and win rates; all pairs of all rows are one family for Holm's correction."""
    pairs: dict[tuple[int, int, int], PairedDifference] = {}
    for number, (row, samples) in enumerate(family):
        for one, first in enumerate(samples):
            for other in range(one + 1, len(samples)):
                second = samples[other]
                if first is None or second is None:
                    continue
                found = paired_difference(first, second, resamples, fraction=row.unit == "fraction")
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
    scores = RatioSamples(np.repeat([1.0, 0.5, 0.0], [wins, ties, losses]), np.ones(len(change)))
    rate = (wins + ties / 2) / len(change)
    return WinRate(wins, ties, losses, rate, interval(scores) or wilson_interval(rate, len(change)))


def _estimated(samples: Samples | None, resamples: Resamples) -> Estimate:
    if not isinstance(samples, RatioSamples):
        return Estimate(None, None, 0)
    return Estimate(samples.value(), interval(samples, resamples), int(samples.counts.sum()))


def _object_rows(models: Sequence[ComparedModel], resamples: Resamples) -> list[Judged]:
    """Means over objects that the benchmark does not list, such as the IoU of boxes; images have them, AP they lack."""
    tables = [model.object_samples(value_samples) for model in models]
    results = models[0].runs[0].results
    family: list[Judged] = []
    for name in tables[0]:
        if name not in results.metrics:
            samples = [table.get(name) for table in tables]
            estimates = tuple(_estimated(one, resamples) for one in samples)
            row = ComparisonRow(results.benchmark, name, "fraction", True, None, None, estimates, (), ())
            family.append((row, samples))
    return family


def _slice_rows(models: Sequence[ComparedModel], resamples: Resamples, baseline: int) -> list[ComparisonRow]:
    tables = [model.object_samples(slice_samples) for model in models]
    benchmark = models[0].runs[0].results.benchmark
    family: list[Judged] = []
    for name, slice_name, label in tables[baseline]:
        samples = [table.get((name, slice_name, label)) for table in tables]
        estimates = tuple(_estimated(one, resamples) for one in samples)
        row = ComparisonRow(benchmark, name, "fraction", True, slice_name, label, estimates, (), ())
        family.append((row, samples))
    return _judged(family, resamples, baseline)
