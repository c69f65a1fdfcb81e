"""The models of a comparison: their runs, read and checked. Runs that differ in the seed alone are repeats of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from instbench.errors import InputError
from instbench.runs.identity import MUST_AGREE, FieldDifference, identity_differences
from instbench.runs.records import ResultsRecord, RunRecord
from instbench.runs.store import RunFolder
from instbench.statistics.samples import RatioSamples, Samples, pool_repeats
from instbench.statistics.store import read_samples

__all__ = ["COMPARED_FILES", "ComparedModel", "ScoredRun", "by_benchmark", "model_labels", "read_models"]

COMPARED_FILES = ("run.json", "results.json", "samples.npz", "instances.parquet")
"""What a comparison reads of a run."""

_SEED = "seed"
Key = TypeVar("Key")


@dataclass(frozen=True)
class ScoredRun:
    """A run folder with its numbers.

    Attributes:
        folder: The folder.
        record: ``run.json``.
        results: ``results.json``.
        keys: Keys of the layouts, in order.
        metrics: What the numbers are made of, by metric.
    """

    folder: Path
    record: RunRecord
    results: ResultsRecord
    keys: tuple[str, ...]
    metrics: Mapping[str, Samples]

    @property
    def seed(self) -> int:
        """The user's seed."""
        return int(self.record.identity.get(_SEED, 0))

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The rows per requested object."""
        path = RunFolder(self.folder).instances_parquet
        try:
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path}: unreadable ({' '.join(str(error).split())[:120]}); score the run again"
            ) from None
        return rows


@dataclass(frozen=True)
class ComparedModel:
    """A model on one benchmark: one run, or several that differ in the seed alone.

    Attributes:
        runs: The runs, by rising seed.
    """

    runs: tuple[ScoredRun, ...]

    @property
    def name(self) -> str:
        """Name of the generator."""
        return self.runs[0].record.model

    @property
    def folders(self) -> str:
        """The run folders in words."""
        return ",".join(str(run.folder) for run in self.runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, rising."""
        return tuple(run.seed for run in self.runs)

    def samples(self, metric: str) -> Samples | None:
        """What a number is made of, over all repeats; None where a repeat lacks it."""
        return pool_repeats([run.metrics.get(metric) for run in self.runs])

    def object_samples(
        self, make: Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Mapping[Key, RatioSamples]]
    ) -> dict[Key, Samples | None]:
        """Samples made from the rows per object, over all repeats.

        Args:
            make: From the rows and the image keys of one run to its samples.
        """
        tables = [make(run.objects, run.keys) for run in self.runs]
        return {key: pool_repeats([table.get(key) for table in tables]) for key in tables[0]}


def read_models(groups: Sequence[Sequence[Path]]) -> list[ComparedModel]:
    """Reads the runs of each model, and checks that they can be compared.

    Args:
        groups: Run folders by model.

    Raises:
        InputError: If a run is not scored; if runs of one model differ in more than the seed; or if models differ in
            benchmark, edition, layouts, evaluators or seeds. Says in what.
    """
    models = [_model([_read(folder) for folder in folders]) for folders in groups]
    for model in models[1:]:
        _check_comparable(models[0], model)
    return models


def _read(folder: Path) -> ScoredRun:
    run = RunFolder(folder)
    record = run.read_run()
    if not run.results_json.is_file():
        raise InputError(f"{folder}: is not scored yet; run `instbench score {folder}`")
    results = run.read_results()
    if results.identity_sha256 != record.identity_sha256:
        raise InputError(f"{folder}: results.json is of another run than run.json; score it again")
    samples = read_samples(run.samples_npz)
    return ScoredRun(folder, record, results, samples.image_keys, samples.metrics)


def _model(runs: Sequence[ScoredRun]) -> ComparedModel:
    first = runs[0]
    known: dict[int, Path] = {}
    for run in runs:
        differing = [
            one
            for one in identity_differences(first.record.identity, run.record.identity)
            if one.field != _SEED
        ]
        if differing:
            raise InputError(
                f"{first.folder} and {run.folder} are no repeats of one model; besides the seed they differ in "
                f"{_listed(differing)}"
            )
        _check_layouts(first, run)
        if run.seed in known:
            raise InputError(
                f"{known[run.seed]} and {run.folder} have the same seed {run.seed}; repeats need a seed each"
            )
        known[run.seed] = run.folder
    return ComparedModel(tuple(sorted(runs, key=lambda run: run.seed)))


def _check_comparable(first: ComparedModel, other: ComparedModel) -> None:
    mine, theirs = (
        {name: model.runs[0].record.identity.get(name) for name in MUST_AGREE} for model in (first, other)
    )
    differing = identity_differences(mine, theirs)
    if first.seeds != other.seeds:
        seeds = (", ".join(map(str, model.seeds)) for model in (first, other))
        name = _SEED if len(first.seeds) == len(other.seeds) == 1 else "seeds"
        differing.append(FieldDifference(field=name, theirs=next(seeds), ours=next(seeds)))
    if differing:
        raise InputError(
            f"{first.folders} and {other.folders} cannot be compared; they differ in {_listed(differing)}"
        )
    _check_layouts(first.runs[0], other.runs[0])


def _check_layouts(first: ScoredRun, other: ScoredRun) -> None:
    if first.keys != other.keys:
        raise InputError(
            f"{first.folder} and {other.folder}: samples.npz is of other layouts; score them again"
        )


def _listed(differing: Sequence[FieldDifference]) -> str:
    return "; ".join(f"{one.field} ({_short(one.theirs)} and {_short(one.ours)})" for one in differing)


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def model_labels(
    models: Sequence[ComparedModel],
    labels: Sequence[str] | None,
    addresses: Mapping[Path, str] | None = None,
) -> tuple[str, ...]:
    """A different name for each model.

    Args:
        models: The models.
        labels: Names; None takes the generators', with the folders' where they would repeat.
        addresses: What to call folders that are copies of runs elsewhere.

    Raises:
        InputError: If the labels are too few, too many or repeat.
    """
    if labels is not None:
        if len(labels) != len(models) or len(set(labels)) != len(models):
            raise InputError(f"--labels: give {len(models)} different names")
        return tuple(labels)
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        folders = [model.runs[0].folder for model in models]
        known = addresses or {}
        names = [
            f"{name} ({known.get(folder, f'{folder.parent.name}/{folder.name}')})"
            for name, folder in zip(names, folders, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return tuple(names)


def by_benchmark(found: Sequence[Sequence[Sequence[Path]]]) -> list[list[list[Path]]]:
    """Puts the runs of one benchmark together.

    Args:
        found: For each model, for each of its repeats, the run folders found: one, or one a benchmark.

    Returns:
        For each benchmark that all have, the run folders of each model.

    Raises:
        InputError: If there is one model, a repeat has two runs of a benchmark, or no benchmark is in all.
    """
    if len(found) < 2:
        raise InputError("compare: one run given; give two or more")
    if all(len(folders) == 1 for model in found for folders in model):
        return [[[folders[0] for folders in model] for model in found]]
    named = [[_named(folders) for folders in model] for model in found]
    everything = [one for model in named for one in model]
    shared = [name for name in everything[0] if all(name in one for one in everything)]
    if not shared:
        raise InputError("compare: the folders have no benchmark in common; see run.json of each run")
    return [[[one[name] for one in model] for model in named] for name in shared]


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    named = {RunFolder(folder).read_run().benchmark["name"]: folder for folder in folders}
    if len(named) != len(folders):
        raise InputError(
            f"{folders[0].parent}: has two runs of one benchmark; give the run folders themselves"
        )
    return named
