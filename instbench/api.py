"""The verbs of the command line as functions, with the same defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from instbench import defaults
from instbench.benchmarks import Benchmark, load_benchmark
from instbench.errors import InputError
from instbench.execution.local import RunOutcome, check_folder, execute, rescore
from instbench.execution.merge import merge_shards
from instbench.execution.plan import Plan, make_plan
from instbench.execution.ray import RayOptions, make_executor
from instbench.execution.session import Session
from instbench.options import (
    EvaluatorOptions,
    ImageOptions,
    PlanOptions,
    RunOptions,
    check_names,
    replacements,
    run_settings,
)
from instbench.runs.images import StoreKind, check_store
from instbench.runs.mirror import Place, opened
from instbench.runs.store import RunFolder

if TYPE_CHECKING:
    from instbench.evaluators.folders import DetectorCard
    from instbench.statistics.comparison import Comparison
    from reference_model.checkpoints.folders import Conversion
    from reference_model.checkpoints.whole import Weights

__all__ = ["RunOutcome", "compare", "convert", "convert_detector", "find_runs", "generate", "is_run", "merge"]
__all__ += ["plan_images", "plan_runs", "run", "score", "score_images"]


@dataclass(frozen=True, slots=True)
class _Target:
    benchmark: Benchmark
    folder: Path


def _targets(benchmarks: str | Sequence[str], output: Path, edition: str) -> list[_Target]:
    names = [benchmarks] if isinstance(benchmarks, str) else list(benchmarks)
    if not names:
        raise InputError("no benchmark named; see `instbench ls benchmarks`")
    loaded = [load_benchmark(name, edition) for name in names]
    if len({one.name for one in loaded}) != len(loaded):
        raise InputError(f"a benchmark is named twice in {', '.join(names)}; name each once")
    if len(loaded) == 1:
        return [_Target(loaded[0], output)]
    return [_Target(one, output / re.sub(r"[^a-z0-9-]", "-", one.name)) for one in loaded]


def plan_runs(
    benchmarks: str | Sequence[str], output: str | Path, **options: Unpack[PlanOptions]
) -> list[tuple[Plan, Path]]:
    """Plans runs without writing anything; see `run`.

    Returns:
        Each plan with the folder that it would use.
    """
    check_names("plan_runs", options, PlanOptions)
    return _plans(benchmarks, output, options)


def _plans(
    benchmarks: str | Sequence[str], output: str | Path, options: PlanOptions
) -> list[tuple[Plan, Path]]:
    session = options.get("session") or Session()
    targets = _targets(benchmarks, Path(output), options.get("edition", defaults.EDITION))
    settings = run_settings(options, [target.benchmark for target in targets], options.get("sampling"))
    checkpoint = options.get("checkpoint")
    weights = None if checkpoint is None else Path(checkpoint)
    model = options.get("model")
    return [
        (
            make_plan(target.benchmark, session, model=model, checkpoint=weights, settings=settings),
            target.folder,
        )
        for target in targets
    ]


def run(
    benchmarks: str | Sequence[str], output: str | Path, **options: Unpack[RunOptions]
) -> list[RunOutcome]:
    """Generates and scores; a second call with the same arguments continues where the first stopped.

    Args:
        benchmarks: One or more benchmark names, or paths of benchmark files.
        output: The run folder, or an address for fsspec such as ``s3://bucket/run``; with several benchmarks each
            gets a folder of its name in it.
        **options: Those of `instbench.options.RunOptions`: ``model``, ``checkpoint``, ``limit``, ``seed``, ...

    Returns:
        One outcome per benchmark.

    Raises:
        InputError: If anything that was given is wrong; one line that names it.
    """
    check_names("run", options, RunOptions)
    return _run(benchmarks, output, options, score=True)


def generate(
    benchmarks: str | Sequence[str], output: str | Path, **options: Unpack[RunOptions]
) -> list[RunOutcome]:
    """Makes the images only; `run` with the same arguments scores them later. See `run`."""
    check_names("generate", options, RunOptions)
    return _run(benchmarks, output, options, score=False)


def _run(
    benchmarks: str | Sequence[str], output: str | Path, options: RunOptions, *, score: bool
) -> list[RunOutcome]:
    with opened(output, write=True) as place:
        return _placed(place, _run_in(benchmarks, place.folder, options, score=score))


def _placed(place: Place, outcomes: list[RunOutcome]) -> list[RunOutcome]:
    """Outcomes with the address that they are at, if there is one."""
    if place.address is None:
        return outcomes
    return [replace(one, address=place.named(one.folder)) for one in outcomes]


def _run_in(
    benchmarks: str | Sequence[str], output: Path, options: RunOptions, *, score: bool
) -> list[RunOutcome]:
    options["session"] = session = options.get("session") or Session()
    store = options.get("image_store")
    where: dict[str, Any] = {
        "fresh": options.get("fresh", False),
        "shard": options.get("shard"),
        "image_store": None if store is None else check_store(store),
    }
    workers = RayOptions(options.get("address"), options.get("workers"), options.get("gpus_per_worker"))
    executor = make_executor(options.get("executor", defaults.EXECUTOR), session, workers)
    plans = _plans(benchmarks, output, options)
    # A folder that cannot be used must not come to light after hours of other runs.
    for plan, folder in plans:
        check_folder(plan, folder, **where)
    with executor or nullcontext():
        return [
            execute(plan, folder, session, score=score, executor=executor, **where) for plan, folder in plans
        ]


def merge(
    shards: Sequence[str | Path],
    output: str | Path,
    *,
    image_store: StoreKind | None = None,
    session: Session | None = None,
) -> list[RunOutcome]:
    """Joins the shards of a run and scores it, as if it had never been divided.

    Args:
        shards: Folders that `run` or `generate` filled with `shard`.
        output: The run folder to write.
        image_store: How it keeps its images, see `run`; None keeps to what is there, or to the first shard.
        session: Loaded networks, to share between calls.

    Returns:
        The outcome, alone in a list.

    Raises:
        InputError: If the shards are of different runs or disagree, or an image is missing.
    """
    store = None if image_store is None else check_store(image_store)
    with ExitStack() as stack:
        parts = [stack.enter_context(opened(one, write=False)).folder for one in shards]
        place = stack.enter_context(opened(output, write=True))
        return _placed(place, [merge_shards(parts, place.folder, session or Session(), store)])


def is_run(path: str | Path) -> bool:
    """Whether a path is a run folder."""
    return RunFolder(Path(path)).run_json.is_file()


def find_runs(path: str | Path) -> list[Path]:
    """Returns the run folders at a path: itself, or those directly inside.

    Raises:
        InputError: If there is none.
    """
    root = Path(path)
    if RunFolder(root).run_json.is_file():
        return [root]
    found = sorted(file.parent for file in root.glob("*/run.json")) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{root}: no run here (no run.json); give a run folder or a folder of runs, "
            "or for images made elsewhere add --benchmark B -o DIR"
        )
    return found


def score(
    path: str | Path, *, session: Session | None = None, **evaluators: Unpack[EvaluatorOptions]
) -> list[RunOutcome]:
    """Observes and scores finished images again. For images made elsewhere see `score_images`.

    Args:
        path: A run folder, or a folder of run folders.
        session: Loaded networks, to share between calls.
        **evaluators: Those of `instbench.options.EvaluatorOptions`, in place of the run's; the run's identity changes
            with them.

    Returns:
        One outcome per run.
    """
    check_names("score", evaluators, EvaluatorOptions)
    session = session or Session()
    with opened(path, write=True) as place:
        found = find_runs(place.folder)
        return _placed(place, [rescore(folder, session, replacements(evaluators)) for folder in found])


def plan_images(folder: str | Path, benchmark: str, **options: Unpack[ImageOptions]) -> Plan:
    """Checks a folder of images made elsewhere and plans its run; writes nothing. See `score_images`."""
    from instbench.generators.image_folder import FolderRules, ImageFolderGenerator

    check_names("plan_images", options, ImageOptions)
    rules = FolderRules(
        options.get("allow_missing", False), options.get("resize", False), options.get("allow_real", False)
    )
    ready = ImageFolderGenerator(Path(folder), rules)
    asked = load_benchmark(benchmark, options.get("edition", defaults.EDITION))
    return make_plan(
        asked,
        options.get("session") or Session(),
        checkpoint=Path(folder).absolute(),
        settings=run_settings(options, [asked]),
        ready=ready,
        name=options.get("name"),
    )


def score_images(
    folder: str | Path,
    benchmark: str,
    output: str | Path,
    *,
    fresh: bool = False,
    **options: Unpack[ImageOptions],
) -> RunOutcome:
    """Scores images that were made elsewhere, as a run of their own.

    Args:
        folder: The images; how they are named is said by `instbench.generators.manifest.read_manifest`.
        benchmark: Name or path of the benchmark that they answer.
        output: The run folder.
        fresh: Delete the run that is in the output folder first.
        **options: Those of `instbench.options.ImageOptions`: ``name``, ``limit``, ``allow_missing``, ...

    Returns:
        The outcome.

    Raises:
        InputError: If the folder does not answer the benchmark; `details` lists every file that does not fit.
    """
    check_names("score_images", options, ImageOptions)
    options["session"] = session = options.get("session") or Session()
    with opened(output, write=True) as place:
        RunFolder(place.folder).check_usable()
        plan = plan_images(folder, benchmark, **options)
        return _placed(place, [execute(plan, place.folder, session, fresh=fresh)])[0]


def compare(
    paths: Sequence[str | Path | Sequence[str | Path]],
    *,
    labels: Sequence[str] | None = None,
    baseline: int = 0,
    slices: bool = False,
    objects: bool = False,
) -> list[Comparison]:
    """Compares runs on the same layouts, seeds and evaluators.

    Args:
        paths: Run folders; or folders of runs, which are then compared benchmark by benchmark. A list of them in
            place of one: runs of one model that differ in the seed alone, which count as repeats.
        labels: Names, one per model; None takes the generators'.
        baseline: Which one the others are compared with.
        slices: Also compare every number in every bin.
        objects: Also compare means over objects that the benchmark does not list.

    Returns:
        One comparison per benchmark.

    Raises:
        InputError: If runs differ in more than the model; says in what.
    """
    from instbench.statistics.compared import COMPARED_FILES, by_benchmark
    from instbench.statistics.comparison import compare_runs

    options: dict[str, Any] = {"labels": labels, "baseline": baseline, "slices": slices, "objects": objects}
    groups = [[path] if isinstance(path, str | Path) else list(path) for path in paths]
    with ExitStack() as stack:
        places = [
            [stack.enter_context(opened(path, write=False, only=COMPARED_FILES)) for path in group]
            for group in groups
        ]
        found = [[find_runs(place.folder) for place in group] for group in places]
        options["addresses"] = {
            folder: place.named(folder)
            for group, folders in zip(places, found, strict=True)
            for place, runs in zip(group, folders, strict=True)
            for folder in runs
            if place.address is not None
        }
        return [compare_runs(models, **options) for models in by_benchmark(found)]


def convert(
    checkpoint: str | Path,
    output: str | Path,
    *,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    dtype: str = defaults.CONVERT_DTYPE,
    format: str = "auto",
    weights: Weights = "auto",
    to_published: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Turns a published checkpoint into a pipeline folder for `checkpoint` of `run`, or back.

    Args:
        checkpoint: A published `.pth` or `.safetensors` file, or a GLIGEN pipeline folder.
        output: The folder to write; a `.safetensors` file with `to_published`.
        tokenizer: Folder of the tokenizer; published files have none.
        config: Published YAML to use in place of the configuration in the file.
        dtype: "float32" or "float16".
        format: "instancediffusion", "gligen", or "auto": told from the names of the tensors.
        weights: "ema", "model", or "auto": averaged weights if there are any.
        to_published: The way back: `checkpoint` is a pipeline folder.
        overwrite: Replace an earlier conversion.

    Returns:
        What was done.

    Raises:
        InputError: If anything that was given is wrong; one line that names it.
    """
    import reference_model.checkpoints as layouts  # deferred: needs torch

    source, target = Path(checkpoint), Path(output)
    try:
        if to_published:
            return layouts.publish(source, target, overwrite=overwrite)
        return layouts.convert(
            source,
            target,
            tokenizer=None if tokenizer is None else Path(tokenizer),
            config=None if config is None else Path(config),
            dtype=dtype,
            format=format,
            weights=weights,
            overwrite=overwrite,
        )
    except layouts.CheckpointError as error:
        raise InputError(str(error)) from None


def convert_detector(checkpoint: str | Path, output: str | Path, *, overwrite: bool = False) -> DetectorCard:
    """Turns a ``.pt`` file of ultralytics into a folder of safetensors for `detector` of `run`.

    Args:
        checkpoint: Detection or segmentation weights; nothing in the file is run.
        output: The folder to write.
        overwrite: Replace an earlier conversion.

    Returns:
        The card of the folder: categories and settings.

    Raises:
        InputError: If anything that was given is wrong; one line that names it.
    """
    from instbench.evaluators.convert import convert_yolo  # deferred: needs torch

    return convert_yolo(Path(checkpoint), Path(output), overwrite=overwrite)
