"""The options of `instbench.api`: each is named, typed and described here once, for all functions that take it.

Functions take them as keywords: ``run("shapes-box", "runs/try", limit=32, seed=1)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from instbench import defaults
from instbench.benchmarks import Benchmark, CocoData
from instbench.errors import InputError
from instbench.execution.plan import RunSettings
from instbench.execution.session import Session
from instbench.execution.shards import Shard
from instbench.generators.base import SamplingSettings
from instbench.registry import EVALUATOR_ROLES
from instbench.runs.images import StoreKind

__all__ = [
    "EvaluatorOptions",
    "ImageOptions",
    "LayoutOptions",
    "PlanOptions",
    "RunOptions",
    "check_names",
    "replacements",
    "run_settings",
]


class EvaluatorOptions(TypedDict, total=False):
    """Evaluators in place of the benchmark's: a name, or a path that `load_detector` takes.

    Attributes:
        detector: Detector.
        image_text: Image-text model.
        features: Feature extractor.
    """

    detector: str | Path | None
    image_text: str | Path | None
    features: str | Path | None


class LayoutOptions(EvaluatorOptions, total=False):
    """What is asked, and how it is scored.

    Attributes:
        edition: "strict" (the default) or "paper".
        limit: First so many layouts.
        seed: Every image's seed is derived from this one, and that of metrics that draw at random.
        annotations: COCO-format instances file to use in place of the benchmark's data.
        captions: COCO-format captions file to it.
        images: Folder of the real images to it, for FID and to notice real images in a folder.
        session: Loaded networks, to share between calls.
    """

    edition: str
    limit: int | None
    seed: int
    annotations: str | Path | None
    captions: str | Path | None
    images: str | Path | None
    session: Session | None


class PlanOptions(LayoutOptions, total=False):
    """The same with who makes the images.

    Attributes:
        model: Generator name or ``package.module:factory``; None takes the benchmark's own, or the reference model.
        checkpoint: Checkpoint of the generator; None takes the shipped weights.
        sampling: Sampling settings; what is None is the benchmark's or the model's choice.
    """

    model: str | None
    checkpoint: str | Path | None
    sampling: SamplingSettings | None


class RunOptions(PlanOptions, total=False):
    """The same with how it is carried out.

    Attributes:
        fresh: Delete the run that is in the folder first.
        shard: Make and observe only this part of the images, without a score; `merge` joins the parts.
        image_store: How a new run keeps its images: "files", one each, or "archives", 1,000 in each; None keeps
            to what is there, or files.
        executor: "local" (the default), this process, or "ray", the workers of a Ray cluster.
        address: "auto" or the address of the Ray cluster; None starts one on this machine.
        workers: Ray workers; None takes one per GPU, or one.
        gpus_per_worker: GPUs of a Ray worker; None takes 1 where there are any.
    """

    fresh: bool
    shard: Shard | None
    image_store: StoreKind | None
    executor: str
    address: str | None
    workers: int | None
    gpus_per_worker: float | None


class ImageOptions(LayoutOptions, total=False):
    """`LayoutOptions` with what a folder of images made elsewhere may be.

    Attributes:
        name: What to call their maker in the results.
        allow_missing: Missing and unreadable images are misses, extra images are left out.
        resize: Squash images of another size to the canvas.
        allow_real: Score the folder although it holds the real images.
    """

    name: str | None
    allow_missing: bool
    resize: bool
    allow_real: bool


def check_names(function: str, given: Mapping[str, object], known: type) -> None:
    """Refuses options that a function does not have.

    Args:
        function: Its name.
        given: The options.
        known: Their class.

    Raises:
        TypeError: As Python does for an unknown keyword.
    """
    for name in given:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def run_settings(
    options: LayoutOptions, benchmarks: Sequence[Benchmark], sampling: SamplingSettings | None = None
) -> RunSettings:
    """Turns options into the settings of runs.

    Args:
        options: The options.
        benchmarks: The benchmarks that will be run.
        sampling: Sampling settings.

    Raises:
        InputError: If data are incomplete, or an evaluator has no use; names the option.
    """
    evaluators = replacements(options)
    for role, name in evaluators.items():
        if not any(role in one.evaluators.model_dump(exclude_none=True) for one in benchmarks):
            asked = ", ".join(one.name for one in benchmarks)
            kind = EVALUATOR_ROLES[role][0].kind
            raise InputError(f"--{role.replace('_', '-')} {name}: {asked} uses no {kind}; leave it out")
    return RunSettings(
        limit=options.get("limit"),
        seed=options.get("seed", defaults.SEED),
        sampling=sampling or SamplingSettings(),
        data=_own_data(options.get("annotations"), options.get("captions"), options.get("images")),
        evaluators=evaluators,
    )


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


def replacements(options: EvaluatorOptions) -> dict[str, str]:
    """Evaluators by role; paths become absolute, so that `score` finds them from wherever it is called."""
    given = {role: options.get(role) for role in EVALUATOR_ROLES}
    return {role: _absolute(role, str(name)) for role, name in given.items() if name is not None}


def _absolute(role: str, name: str) -> str:
    if name in EVALUATOR_ROLES[role][0]:
        return name
    model, equals, path = name.partition("=")  # MODEL=FILE of open_clip
    if equals and Path(path).exists():
        return f"{model}={Path(path).absolute()}"
    return str(Path(name).absolute()) if Path(name).exists() else name
