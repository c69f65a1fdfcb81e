"""The verbs of the command line as functions, with the same defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench import defaults
from instbench.benchmarks import Benchmark, CocoData, load_benchmark
from instbench.errors import InputError
from instbench.execution.local import RunOutcome, check_folder, execute, rescore
from instbench.execution.merge import merge_shards
from instbench.execution.plan import Plan, RunSettings, make_plan
from instbench.execution.ray import RayOptions, make_executor
from instbench.execution.session import Session
from instbench.execution.shards import Shard
from instbench.generators.base import SamplingSettings
from instbench.registry import EVALUATOR_ROLES
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
    benchmarks: str | Sequence[str],
    output: str | Path,
    *,
    model: str | None = None,
    checkpoint: str | Path | None = None,
    edition: str = defaults.EDITION,
    limit: int | None = None,
    seed: int = defaults.SEED,
    sampling: SamplingSettings | None = None,
    annotations: str | Path | None = None,
    captions: str | Path | None = None,
    images: str | Path | None = None,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    session: Session | None = None,
) -> list[tuple[Plan, Path]]:
    """Plans runs without writing anything; see `run` for the arguments.

    Returns:
        Each plan with the folder that it would use.
    """
    session = session or Session()
    data = _own_data(annotations, captions, images)
    targets = _targets(benchmarks, Path(output), edition)
    evaluators = _replacements(detector, image_text, features)
    _check_used(evaluators, [target.benchmark for target in targets])
    settings = RunSettings(
        limit=limit, seed=seed, sampling=sampling or SamplingSettings(), data=data, evaluators=evaluators
    )
    weights = None if checkpoint is None else Path(checkpoint)
    return [
        (
            make_plan(target.benchmark, session, model=model, checkpoint=weights, settings=settings),
            target.folder,
        )
        for target in targets
    ]


def _own_data(
    annotations: str | Path | None, captions: str | Path | None, images: str | Path | None
) -> CocoData | None:
    """The user's data; paths become absolute, so that `score` finds the real images from wherever it is called."""
    if annotations is None:
        if captions is not None or images is not None:
            raise InputError("--captions and --images belong to --annotations; give --annotations FILE too")
        return None
    if images is not None and not Path(images).is_dir():
        raise InputError(f"--images {images}: no such folder")
    return CocoData(
        annotations=Path(annotations).absolute(),
        captions=None if captions is None else Path(captions).absolute(),
        images=None if images is None else Path(images).absolute(),
    )


def _replacements(
    detector: str | Path | None, image_text: str | Path | None, features: str | Path | None
) -> dict[str, str]:
    """Evaluators by role; paths become absolute, so that `score` finds them from wherever it is called."""
    given = {"detector": detector, "image_text": image_text, "features": features}
    return {role: _absolute(role, str(name)) for role, name in given.items() if name is not None}


def _absolute(role: str, name: str) -> str:
    if name in EVALUATOR_ROLES[role][0]:
        return name
    model, equals, path = name.partition("=")  # MODEL=FILE of open_clip
    if equals and Path(path).exists():
        return f"{model}={Path(path).absolute()}"
    return str(Path(name).absolute()) if Path(name).exists() else name


def _check_used(evaluators: Mapping[str, str], benchmarks: Sequence[Benchmark]) -> None:
    for role, name in evaluators.items():
        if not any(role in one.evaluators.model_dump(exclude_none=True) for one in benchmarks):
            asked = ", ".join(one.name for one in benchmarks)
            kind = EVALUATOR_ROLES[role][0].kind
            raise InputError(f"--{role.replace('_', '-')} {name}: {asked} uses no {kind}; leave it out")


def run(
    benchmarks: str | Sequence[str],
    output: str | Path,
    *,
    model: str | None = None,
    checkpoint: str | Path | None = None,
    edition: str = defaults.EDITION,
    limit: int | None = None,
    seed: int = defaults.SEED,
    sampling: SamplingSettings | None = None,
    annotations: str | Path | None = None,
    captions: str | Path | None = None,
    images: str | Path | None = None,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    fresh: bool = False,
    shard: Shard | None = None,
    executor: str = defaults.EXECUTOR,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    session: Session | None = None,
) -> list[RunOutcome]:
    """Generates and scores; a second call with the same arguments continues where the first stopped.

    Args:
        benchmarks: One or more benchmark names, or paths of benchmark files.
        output: The run folder; with several benchmarks each gets a folder of its name in it.
        model: Generator name or ``package.module:factory``; None takes the benchmark's own, or the
            reference model.
        checkpoint: Checkpoint of the generator; None takes the shipped weights.
        edition: "strict" or "paper".
        limit: First so many layouts.
        seed: Every image's seed is derived from this one.
        sampling: Sampling settings; what is None is the benchmark's or the model's choice.
        annotations: COCO-format instances file to use in place of the benchmark's data.
        captions: COCO-format captions file to it.
        images: Folder of the real images to it.
        detector: Detector in place of the benchmark's: a name, or a path that `load_detector` takes.
        image_text: Image-text model in place of the benchmark's, likewise.
        features: Feature extractor in place of the benchmark's, likewise.
        fresh: Delete the run that is in the folder first.
        shard: Make and observe only this part of the images, without a score; `merge` joins the parts.
        executor: "local", this process, or "ray", the workers of a Ray cluster.
        address: "auto" or the address of the Ray cluster; None starts one on this machine.
        workers: Ray workers; None takes one per GPU, or one.
        gpus_per_worker: GPUs of a Ray worker; None takes 1 where there are any.
        session: Loaded networks, to share between calls.

    Returns:
        One outcome per benchmark.

    Raises:
        InputError: If anything that was given is wrong; one line that names it.
    """
    return _run(locals(), score=True)


def generate(
    benchmarks: str | Sequence[str],
    output: str | Path,
    *,
    model: str | None = None,
    checkpoint: str | Path | None = None,
    edition: str = defaults.EDITION,
    limit: int | None = None,
    seed: int = defaults.SEED,
    sampling: SamplingSettings | None = None,
    annotations: str | Path | None = None,
    captions: str | Path | None = None,
    images: str | Path | None = None,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    fresh: bool = False,
    shard: Shard | None = None,
    executor: str = defaults.EXECUTOR,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    session: Session | None = None,
) -> list[RunOutcome]:
    """Makes the images only; `run` with the same arguments scores them later. See `run`."""
    return _run(locals(), score=False)


def _run(arguments: dict[str, Any], *, score: bool) -> list[RunOutcome]:
    fresh, shard = arguments.pop("fresh"), arguments.pop("shard")
    workers = RayOptions(*(arguments.pop(name) for name in ("address", "workers", "gpus_per_worker")))
    arguments["session"] = session = arguments["session"] or Session()
    executor = make_executor(arguments.pop("executor"), session, workers)
    plans = plan_runs(**arguments)
    for (
        plan,
        folder,
    ) in plans:  # a folder that cannot be used must not come to light after hours of other runs
        check_folder(plan, folder, fresh=fresh, shard=shard)
    with executor or nullcontext():
        return [
            execute(plan, folder, session, fresh=fresh, score=score, shard=shard, executor=executor)
            for plan, folder in plans
        ]


def merge(
    shards: Sequence[str | Path], output: str | Path, *, session: Session | None = None
) -> list[RunOutcome]:
    """Joins the shards of a run and scores it, as if it had never been divided.

    Args:
        shards: Folders that `run` or `generate` filled with `shard`.
        output: The run folder to write.
        session: Loaded networks, to share between calls.

    Returns:
        The outcome, alone in a list.

    Raises:
        InputError: If the shards are of different runs or disagree, or an image is missing.
    """
    return [merge_shards([Path(one) for one in shards], Path(output), session or Session())]


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
    path: str | Path,
    *,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    session: Session | None = None,
) -> list[RunOutcome]:
    """Observes and scores finished images again. For images made elsewhere see `score_images`.

    Args:
        path: A run folder, or a folder of run folders.
        detector: Detector in place of the run's, see `run`; the run's identity changes with it.
        image_text: Image-text model in place of the run's.
        features: Feature extractor in place of the run's.
        session: Loaded networks, to share between calls.

    Returns:
        One outcome per run.
    """
    session = session or Session()
    evaluators = _replacements(detector, image_text, features)
    return [rescore(folder, session, evaluators) for folder in find_runs(path)]


def plan_images(
    folder: str | Path,
    benchmark: str,
    *,
    edition: str = defaults.EDITION,
    name: str | None = None,
    limit: int | None = None,
    seed: int = defaults.SEED,
    annotations: str | Path | None = None,
    captions: str | Path | None = None,
    images: str | Path | None = None,
    allow_missing: bool = False,
    resize: bool = False,
    allow_real: bool = False,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    session: Session | None = None,
) -> Plan:
    """Checks a folder of images made elsewhere and plans its run; writes nothing. See `score_images`."""
    from instbench.generators.image_folder import FolderRules, ImageFolderGenerator

    ready = ImageFolderGenerator(Path(folder), FolderRules(allow_missing, resize, allow_real))
    asked = load_benchmark(benchmark, edition)
    evaluators = _replacements(detector, image_text, features)
    _check_used(evaluators, [asked])
    settings = RunSettings(
        limit=limit, seed=seed, data=_own_data(annotations, captions, images), evaluators=evaluators
    )
    where = Path(folder).absolute()
    return make_plan(asked, session or Session(), checkpoint=where, settings=settings, ready=ready, name=name)


def score_images(
    folder: str | Path,
    benchmark: str,
    output: str | Path,
    *,
    edition: str = defaults.EDITION,
    name: str | None = None,
    limit: int | None = None,
    seed: int = defaults.SEED,
    annotations: str | Path | None = None,
    captions: str | Path | None = None,
    images: str | Path | None = None,
    allow_missing: bool = False,
    resize: bool = False,
    allow_real: bool = False,
    detector: str | Path | None = None,
    image_text: str | Path | None = None,
    features: str | Path | None = None,
    fresh: bool = False,
    session: Session | None = None,
) -> RunOutcome:
    """Scores images that were made elsewhere, as a run of their own.

    Args:
        folder: The images; how they are named is said by `instbench.generators.manifest.read_manifest`.
        benchmark: Name or path of the benchmark that they answer.
        output: The run folder.
        edition: "strict" or "paper".
        name: What to call their maker in the results.
        limit: First so many layouts.
        seed: Seed of metrics that draw at random.
        annotations: COCO-format instances file to use in place of the benchmark's data.
        captions: COCO-format captions file to it.
        images: Folder of the real images to it, for FID and to notice real images in the folder.
        allow_missing: Missing and unreadable images are misses, extra images are left out.
        resize: Squash images of another size to the canvas.
        allow_real: Score the folder although it holds the real images.
        detector: Detector in place of the benchmark's, see `run`.
        image_text: Image-text model in place of the benchmark's.
        features: Feature extractor in place of the benchmark's.
        fresh: Delete the run that is in the output folder first.
        session: Loaded networks, to share between calls.

    Returns:
        The outcome.

    Raises:
        InputError: If the folder does not answer the benchmark; `details` lists every file that does not fit.
    """
    arguments = locals()
    target = Path(arguments.pop("output"))
    fresh = arguments.pop("fresh")
    arguments["session"] = session = session or Session()
    RunFolder(target).check_usable()
    plan = plan_images(**arguments)
    return execute(plan, target, session, fresh=fresh)


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
    from instbench.statistics.compared import by_benchmark
    from instbench.statistics.comparison import compare_runs

    options: dict[str, Any] = {"labels": labels, "baseline": baseline, "slices": slices, "objects": objects}
    groups = [[path] if isinstance(path, str | Path) else list(path) for path in paths]
    found = [[find_runs(path) for path in group] for group in groups]
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
