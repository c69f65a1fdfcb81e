"""Stage 1, plan: settles what is asked, with what, and the identity of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from instbench import defaults
from instbench._version import __version__
from instbench.benchmarks.schema import Benchmark, CocoData, SamplingSpec
from instbench.errors import InputError
from instbench.execution.catalog import check_metrics, replace_evaluators
from instbench.execution.layouts import checked_layouts, dataset_identity, layouts_sha256, source_names
from instbench.execution.session import Evaluators, Session
from instbench.generators.base import GenerationRequest, Generator, SamplingSettings
from instbench.generators.image_folder import ImageFolderGenerator
from instbench.layouts.types import Condition, Layout
from instbench.registry import check_evaluator, check_generator
from instbench.runs.identity import IdentityV1
from instbench.seeds import derive_seed

__all__ = ["Plan", "RunSettings", "make_plan", "make_requests", "model_for"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the user asks for, apart from benchmark and model.

    Attributes:
        limit: First so many layouts, None for all.
        seed: The user's seed.
        sampling: Sampling settings; None leaves each to the benchmark, then to the model.
        data: Other data under the same protocol, or None.
        evaluators: Other evaluators by role ("detector", "image_text", "features").
    """

    limit: int | None = None
    seed: int = defaults.SEED
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    data: CocoData | None = None
    evaluators: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON values."""
        return {
            "limit": self.limit,
            "seed": self.seed,
            "sampling": asdict(self.sampling),
            "data": None if self.data is None else self.data.model_dump(mode="json"),
            "evaluators": dict(self.evaluators),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the later stages need.

    Attributes:
        benchmark: The benchmark, with the user's data in its place if any were given.
        model: Name of the generator.
        checkpoint: Its checkpoint, None for the default.
        layouts: Full layouts, in order; the ground truth of the scores.
        settings: What was asked.
        sampling: Resolved sampling settings.
        identity: Identity of the run.
        generator: The generator.
        evaluators: The evaluators.
        absent: Keys of layouts that the generator is known to have no image for; their objects are misses.
        images_elsewhere: What was found in a folder of ready images, None for other generators.
    """

    benchmark: Benchmark
    model: str
    checkpoint: Path | None
    layouts: tuple[Layout, ...]
    settings: RunSettings
    sampling: SamplingSettings
    identity: IdentityV1
    generator: Generator
    evaluators: Evaluators
    absent: tuple[str, ...] = ()
    images_elsewhere: dict[str, Any] | None = None


def model_for(benchmark: Benchmark, model: str | None) -> str:
    """Returns the model of a run: the ceiling has its own, others default to the reference model.

    Raises:
        InputError: If a ceiling benchmark is asked with another model.
    """
    if benchmark.generator is None:
        return model or defaults.MODEL
    if model not in (None, benchmark.generator):
        raise InputError(
            f"{benchmark.name} takes only --model {benchmark.generator}; leave --model out or choose another benchmark"
        )
    return benchmark.generator


def make_plan(
    benchmark: Benchmark,
    session: Session,
    *,
    model: str | None = None,
    checkpoint: Path | None = None,
    settings: RunSettings | None = None,
    ready: ImageFolderGenerator | None = None,
    name: str | None = None,
) -> Plan:
    """Plans a run: data, settings, networks and identity. Writes nothing.

    Args:
        benchmark: The benchmark.
        session: Loads the networks.
        model: Generator name, None for the default.
        checkpoint: Checkpoint of the generator.
        settings: What the user asks for.
        ready: A folder of ready images with rules of its own, in place of a model.
        name: What to call the model in the results; None takes its own name.

    Returns:
        The plan.

    Raises:
        InputError: If data, model, checkpoint, evaluator or settings are wrong.
    """
    settings = settings or RunSettings()
    if settings.limit is not None and settings.limit < 1:
        raise InputError(f"--limit {settings.limit}: give 1 or more")
    if settings.data is not None:
        benchmark = benchmark.with_data(settings.data)
    benchmark = replace_evaluators(benchmark, settings.evaluators)
    known = model_for(benchmark, "image-folder" if ready is not None else model)
    # Cheap checks and data first: bad input must not wait for networks to load.
    check_generator(known, checkpoint)
    check_metrics(benchmark)
    for role, evaluator in benchmark.evaluators.model_dump(exclude_none=True).items():
        check_evaluator(role, evaluator)
    layouts = checked_layouts(benchmark, settings.limit)
    sampling = _merged(benchmark, settings.sampling)
    generator = session.generator(known, checkpoint) if ready is None else ready
    missing = frozenset(benchmark.conditions) - frozenset(generator.conditions)
    # The floor is shown nothing on purpose; the ceiling and ready images need no conditions.
    if missing and generator.conditions:
        raise InputError(
            f"model {known!r} cannot be shown {', '.join(sorted(missing))}, which {benchmark.name} needs"
        )
    absent: tuple[str, ...] = ()
    found: dict[str, Any] | None = None
    if isinstance(generator, ImageFolderGenerator):
        generator = generator.for_layouts(
            layouts,
            benchmark.canvas_size,
            names=source_names(benchmark),
            complete=settings.limit is None,
            benchmark=benchmark.name,
        )
        absent, found = generator.absent, generator.report()
    sampling = generator.resolve_sampling(sampling)
    evaluators = session.evaluators(benchmark, layouts)
    identity = _identity(benchmark, layouts, sampling, settings.seed, generator, evaluators)
    return Plan(
        benchmark=benchmark,
        model=name or known,
        checkpoint=checkpoint,
        layouts=layouts,
        settings=settings,
        sampling=sampling,
        identity=identity,
        generator=generator,
        evaluators=evaluators,
        absent=absent,
        images_elsewhere=found,
    )


def _identity(
    benchmark: Benchmark,
    layouts: tuple[Layout, ...],
    sampling: SamplingSettings,
    seed: int,
    generator: Generator,
    evaluators: Evaluators,
) -> IdentityV1:
    return IdentityV1(
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        edition=benchmark.edition,
        protocol_sha256=benchmark.protocol_sha256(),
        dataset=dataset_identity(benchmark, layouts),
        layouts_sha256=layouts_sha256(layouts),
        layouts_count=len(layouts),
        conditions=tuple(sorted({str(condition) for condition in benchmark.conditions})),
        canvas_size=benchmark.canvas_size,
        sampling=asdict(sampling),
        seed=seed,
        generator=dict(generator.identity()),
        evaluators=evaluators.identity(),
        code_version=__version__,
    )


def _merged(benchmark: Benchmark, asked: SamplingSettings) -> SamplingSettings:
    """The user's settings over the benchmark's; what stays None is the model's choice."""
    fixed = benchmark.sampling.model_dump()
    fixed.update({name: value for name, value in asdict(asked).items() if value is not None})
    try:
        return SamplingSettings(**SamplingSpec.model_validate(fixed).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InputError(f"--{name.replace('_', '-')} {fixed[name]}: {first['msg']}") from None


def make_requests(
    benchmark: Benchmark, layouts: Sequence[Layout], *, seed: int, sampling: SamplingSettings
) -> list[GenerationRequest]:
    """Turns layouts into requests: withheld formats removed, seeds derived.

    In the paper edition the layouts first become what the published script passes on
    (`instbench.layouts.published`).

    Args:
        benchmark: The benchmark.
        layouts: Full layouts.
        seed: The user's seed.
        sampling: Resolved sampling settings.

    Returns:
        One request per layout, in order.
    """
    from instbench.layouts import restrict
    from instbench.layouts.published import as_published

    if benchmark.edition == "paper":
        layouts = [as_published(layout) for layout in layouts]
    conditions: frozenset[Condition] = frozenset(benchmark.conditions)
    return [
        GenerationRequest(
            layout=restrict(layout, conditions),
            conditions=conditions,
            seed=derive_seed(benchmark.name, benchmark.version, layout.image_key, seed=seed),
            canvas_size=benchmark.canvas_size,
            sampling=sampling,
        )
        for layout in layouts
    ]
