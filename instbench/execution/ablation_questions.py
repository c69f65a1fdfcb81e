"""The questions of the paper that can be asked of the shipped weights on Shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from instbench.benchmarks import Benchmark, load_benchmark
from instbench.benchmarks.schema import MetricSpec
from instbench.errors import InputError
from instbench.generators.base import SamplingSettings
from instbench.generators.variants import FREEU, FREEU_MILD, Variant
from instbench.layouts.types import Condition
from instbench.registry import did_you_mean

__all__ = [
    "FORMATS_BENCHMARK",
    "QUESTIONS",
    "Measure",
    "Question",
    "choose_questions",
    "find_benchmark",
    "find_question",
]

FORMATS_BENCHMARK = "shapes-formats"
"""Not a benchmark of its own: `shapes-mask` with all formats allowed, so that variants can withhold some."""

_LOCATION = ("box_ap", "box_ap50", "mask_iou", "point_hit_rate", "scribble_hit_rate")


@dataclass(frozen=True, slots=True)
class Measure:
    """What is looked at.

    Attributes:
        benchmark: Benchmark that every variant runs.
        metrics: Its numbers that speak to the question.
    """

    benchmark: str
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One ablation.

    Attributes:
        name: Short name, as on the command line.
        title: The question in words.
        variants: What is compared; the first is the model as it is, the baseline of the differences.
        measures: On which benchmarks, by which numbers.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    measures: tuple[Measure, ...]

    @property
    def needs_training(self) -> bool:
        """Whether its variants have weights of their own, which do not ship."""
        return any(variant.trained for variant in self.variants)


def _shown(name: str, label: str, *formats: Condition) -> Variant:
    return Variant(name, label, shown=frozenset(formats))


def _trained(name: str, label: str) -> Variant:
    return Variant(name, label, trained=name)


_ALL = Variant("default", "all formats")
_ALONE = tuple(_shown(f"only-{one}", f"{one} alone", one) for one in Condition)

QUESTIONS = (
    Question(
        "formats",
        "Which location formats does UniFusion need to see?",
        (
            _ALL,
            *_ALONE,
            _shown("box-point", "box and point", Condition.BOX, Condition.POINT),
            _shown("no-mask", "all but mask", Condition.BOX, Condition.POINT, Condition.SCRIBBLE),
        ),
        (Measure(FORMATS_BENCHMARK, _LOCATION),),
    ),
    Question(
        "hybrid",
        "May every object come in a format of its own?",
        (_ALL, Variant("mixed", "each object in one format", mixed=True), *_ALONE),
        (Measure(FORMATS_BENCHMARK, _LOCATION),),
    ),
    Question(
        "scaleu",
        "What does ScaleU do, and could FreeU's constants do it?",
        (
            Variant("default", "ScaleU"),
            Variant("scaleu-off", "off", scaleu="off"),
            Variant("freeu-mild", "FreeU 1.1, 1.2, .9, .2", scaleu="constants", constants=FREEU_MILD),
            Variant("freeu", "FreeU 1.5, 1.6, .9, .2", scaleu="constants", constants=FREEU),
        ),
        (
            Measure("shapes-box", ("box_ap", "box_ap50", "fid")),
            Measure("shapes-texture", ("texture_accuracy",)),
        ),
    ),
    Question(
        "masked-attention",
        "How much hangs on instance-masked attention?",
        (
            Variant("default", "correct"),
            Variant("masks-published", "published (axes swapped)", masked_attention="published"),
            Variant("masks-none", "none", masked_attention="none"),
        ),
        (Measure("shapes-box", ("box_ap", "box_ap50")),),
    ),
    Question(
        "alpha",
        "For which share of the steps must grounding be on?",
        (
            Variant("default", "1"),
            *(
                Variant(f"alpha-{share:g}", f"{share:g}", sampling=SamplingSettings(alpha=share))
                for share in (0.75, 0.5, 0.25, 0.0)
            ),
        ),
        (Measure("shapes-box", ("box_ap", "box_ap50")),),
    ),
    Question(
        "mis",
        "For which share of the steps should the Multi-Instance Sampler draw objects apart?",
        (
            Variant("default", "0"),
            *(
                Variant(f"mis-{share:g}", f"{share:g}", sampling=SamplingSettings(mis=share))
                for share in (0.1, 0.2, 0.36, 0.5)
            ),
        ),
        (Measure("shapes-texture", ("box_ap50", "texture_accuracy", "texture_leakage")),),
    ),
    Question(
        "trained-without",
        "What if a part had been missing while the model went on learning?",
        (
            _trained("control", "nothing missing"),
            _trained("no-scaleu", "no ScaleU"),
            _trained("no-masks", "no masked attention"),
            _trained("boxes", "no format but boxes"),
        ),
        (
            Measure("shapes-box", ("box_ap", "box_ap50", "fid")),
            Measure("shapes-texture", ("texture_accuracy", "texture_leakage")),
        ),
    ),
    Question(
        "never-had",
        "What if a part had never been there?",
        (
            Variant("default", "nothing missing"),
            _trained("from-start-no-scaleu", "no ScaleU"),
        ),
        (
            Measure("shapes-box", ("box_ap", "box_ap50", "fid")),
            Measure("shapes-texture", ("texture_accuracy", "texture_leakage")),
        ),
    ),
    Question(
        "tokens",
        "One token per format and object, or one for all its formats together?",
        (_trained("separate-tokens", "separate"), _trained("joint-tokens", "joint")),
        (Measure(FORMATS_BENCHMARK, _LOCATION), Measure("shapes-box", ("box_ap", "box_ap50"))),
    ),
)


def choose_questions(names: Iterable[str] | None, trained: Path | None = None) -> tuple[Question, ...]:
    """Questions by name, in the order of `QUESTIONS`.

    Args:
        names: The names; None takes all that can be asked of the weights that are there.
        trained: Folder of trained variants, None if there is none; then the questions about them cannot be asked.

    Raises:
        InputError: If a name is unknown, or a variant that it asks about is not in the folder; or if the folder has
            the weights for no question.
    """
    known = {one.name: one for one in QUESTIONS}
    asked = list(known) if names is None else list(names)
    for name in asked:
        if name not in known:
            raise InputError(f"--question {name}: unknown; {did_you_mean(name, list(known))}")
    chosen = [one for one in QUESTIONS if one.name in asked]
    if names is None:
        complete = [one for one in chosen if not _missing(one, trained)]
        if trained is None or any(one.needs_training for one in complete):
            return tuple(complete)
    for question in chosen:
        missing = _missing(question, trained)
        if missing and trained is None:
            raise InputError(
                f"--question {question.name}: asks about weights that do not ship; train them "
                "(docs/ablations.md) and give their folder with --trained"
            )
        if missing:
            raise InputError(
                f"--trained {trained}: holds no {missing[0]}/model_index.json; train it (docs/ablations.md)"
            )
    return tuple(chosen)


def _missing(question: Question, trained: Path | None) -> list[str]:
    """Names of the weights that a question asks about and that are not there."""
    asked = [variant.trained for variant in question.variants if variant.trained]
    return [name for name in asked if trained is None or not (trained / name / "model_index.json").is_file()]


def find_question(benchmark: str, variant: str) -> Question | None:
    """The first question that runs a variant on a benchmark; None if no question does."""
    for question in QUESTIONS:
        measured = any(measure.benchmark == benchmark for measure in question.measures)
        if measured and any(one.name == variant for one in question.variants):
            return question
    return None


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a measure.

    Raises:
        InputError: If it is unknown.
    """
    if name != FORMATS_BENCHMARK:
        return load_benchmark(name)
    changes = {
        "name": name,
        "description": "Shapes - all formats allowed, for ablations of what is shown",
        "conditions": tuple(Condition),
        "metrics": tuple(MetricSpec(name=metric) for metric in _LOCATION),
    }
    return load_benchmark("shapes-mask").model_copy(update=changes)
