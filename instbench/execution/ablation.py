"""Ablations: one question, several variants of the reference model, the same layouts and noise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from instbench import defaults
from instbench.errors import InputError
from instbench.execution.ablation_questions import Measure, Question, find_benchmark
from instbench.execution.local import check_folder, execute
from instbench.execution.plan import Plan, RunSettings, make_plan
from instbench.execution.session import Session
from instbench.generators.base import Generator
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.generators.variants import Variant, VariantGenerator
from instbench.statistics.comparison import ComparisonRow, compare_runs
from instbench.statistics.intervals import holm

__all__ = ["AblationSession", "AblationSettings", "Answer", "Difference", "Number", "answer", "plan_ablation"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """A variant minus the model as it is, on the same layouts and noise.

    Attributes:
        value: The difference.
        ci95: Its 95 % interval.
        p_adjusted: p value of no difference, corrected for all comparisons of the question (Holm).
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """One number of one variant.

    Attributes:
        benchmark: Where it was measured.
        metric: What was measured.
        variant: Name of the variant.
        label: Its words.
        value: The number, None where nothing could be scored.
        ci95: 95 % interval over images, None where there is none.
        n_scored: Objects (images for FID) behind it.
        unit: "fraction" or "distance".
        higher_is_better: Direction.
        difference: From the first variant; None for itself, and where runs cannot be compared.
    """

    benchmark: str
    metric: str
    variant: str
    label: str
    value: float | None
    ci95: tuple[float, float] | None
    n_scored: int
    unit: str
    higher_is_better: bool
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The numbers of a question.

    Attributes:
        question: The question.
        numbers: By benchmark, metric and variant, in the question's order.
        layouts: Layouts per run.
    """

    question: Question
    numbers: tuple[Number, ...]
    layouts: int


@dataclass(frozen=True, slots=True)
class AblationSettings:
    """What all runs of an ablation have in common.

    Attributes:
        limit: First so many layouts; None takes all.
        seed: Every image's seed is derived from this one.
        num_inference_steps: Sampler steps; None takes the checkpoint's.
        trained: Folder of trained variants, for questions about them; checked by `choose_questions`.
    """

    limit: int | None = None
    seed: int = defaults.SEED
    num_inference_steps: int | None = None
    trained: Path | None = None


@dataclass
class AblationSession(Session):
    """A session whose reference model is the variant in hand; all variants share its weights.

    Attributes:
        variant: The variant that `generator` returns.
    """

    variant: Variant = field(default_factory=lambda: Variant("default"))
    _variants: dict[tuple[str, str, Variant], VariantGenerator] = field(default_factory=dict)

    def generator(self, name: str, checkpoint: Path | None = None) -> Generator:
        """Returns the variant of the reference model; other generators (the real images) as they are."""
        base = super().generator(name, checkpoint)
        if not isinstance(base, InstanceDiffusionGenerator):
            return base
        key = (name, str(checkpoint), self.variant)
        if key not in self._variants:
            self._variants[key] = VariantGenerator(base, self.variant)
        return self._variants[key]


def plan_ablation(
    question: Question,
    output: Path,
    session: AblationSession,
    settings: AblationSettings | None = None,
) -> Iterator[tuple[Measure, Variant, Plan, Path]]:
    """Plans the runs of a question, without writing anything.

    Args:
        question: The question.
        output: Folder of all runs; equal variants of several questions share a run.
        session: Loaded networks; its variant changes with each plan.
        settings: What all runs have in common.

    Yields:
        Measure, variant, plan and folder of each run.
    """
    asked = settings or AblationSettings()
    for measure in question.measures:
        for variant in question.variants:
            session.variant = variant
            sampling = replace(variant.sampling, num_inference_steps=asked.num_inference_steps)
            own_weights = asked.trained / variant.trained if asked.trained and variant.trained else None
            plan = make_plan(
                find_benchmark(measure.benchmark),
                session,
                checkpoint=own_weights,
                settings=RunSettings(limit=asked.limit, seed=asked.seed, sampling=sampling),
                name=f"{defaults.MODEL} ({variant.name})",
            )
            yield measure, variant, plan, output / "runs" / measure.benchmark / variant.name


def answer(
    question: Question,
    output: Path,
    session: AblationSession,
    settings: AblationSettings | None = None,
) -> Answer:
    """Runs what a question asks for; a second call in the same folder continues. See `plan_ablation`.

    Returns:
        The numbers, with differences from the first variant.

    Raises:
        InputError: If a folder holds another run.
    """
    plans = list(plan_ablation(question, output, session, settings))
    for _, _, plan, folder in plans:
        check_folder(plan, folder)
    for _, variant, plan, folder in plans:
        folder.parent.mkdir(parents=True, exist_ok=True)
        outcome = execute(plan, folder, session)
        if outcome.results is None or outcome.failed:
            raise InputError(
                f"{folder}: {len(outcome.failed)} images could not be made; run the command again"
            )
        logger.info("%s: %s on %s done", question.name, variant.name, plan.benchmark.name)
    names = [variant.name for variant in question.variants]
    numbers: list[Number] = []
    for measure in question.measures:
        folders = [folder for asked, _, _, folder in plans if asked is measure]
        for row in compare_runs(folders, labels=names, metrics=measure.metrics).rows:
            numbers += [
                Number(
                    benchmark=row.benchmark,
                    metric=row.metric,
                    variant=variant.name,
                    label=variant.label or variant.name,
                    value=found.value,
                    ci95=found.ci95,
                    n_scored=found.n_scored,
                    unit=row.unit,
                    higher_is_better=row.higher_is_better,
                    difference=_difference(row, position) if position else None,
                )
                for position, (variant, found) in enumerate(
                    zip(question.variants, row.estimates, strict=True)
                )
            ]
    return Answer(question, _adjusted(numbers), len(plans[0][2].layouts))


def _difference(row: ComparisonRow, position: int) -> Difference | None:
    """The paired difference from the first variant; without an interval where there are too few images for one."""
    before, after = row.estimates[0].value, row.estimates[position].value
    if before is None or after is None:
        return None
    found = row.differences[position]
    return Difference(after - before) if found is None else Difference(found.value, found.ci95, found.p_value)


def _adjusted(numbers: Sequence[Number]) -> tuple[Number, ...]:
    """The numbers with the p values of all their differences corrected as one family (Holm)."""
    raw = [None if one.difference is None else one.difference.p_adjusted for one in numbers]
    return tuple(
        one if one.difference is None else replace(one, difference=replace(one.difference, p_adjusted=p))
        for one, p in zip(numbers, holm(raw), strict=True)
    )
