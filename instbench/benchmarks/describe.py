"""A benchmark in words, from its file: what is asked, what may be seen, how it is scored."""

from __future__ import annotations

from typing import Any

from instbench.benchmarks.deviations import DEVIATIONS
from instbench.benchmarks.schema import Benchmark, CocoData, NamedData
from instbench.layouts.from_coco import MAX_INSTANCES

__all__ = ["describe_benchmark"]

_PROMPTS = {
    "strict": {
        "caption": "the first caption of the image, or the phrases where it has none",
        "names": "the phrases of the requested instances",
        "caption+names": "caption and phrases as two sentences",
    },
    "paper": {
        "caption": "first caption and names of all annotations, nothing between them",
        "names": "names of all annotations",
        "caption+names": "first caption and names of all annotations, nothing between them",
    },
}


def describe_benchmark(benchmark: Benchmark) -> dict[str, str]:
    """Explains a benchmark.

    Args:
        benchmark: The benchmark.

    Returns:
        Lines by topic, in the order to print: data, conditions, prompt, attribute, instances, crowds, canvas,
        sampling, evaluators, metrics, model, baseline and, in the paper edition, each deviation from strict.
        Topics that do not apply are left out.
    """
    strict = benchmark.edition == "strict"
    lines = {
        "version": str(benchmark.version),
        "data": _data(benchmark),
        "conditions": _conditions(benchmark),
        "prompt": _PROMPTS[benchmark.edition][benchmark.prompt],
        "attribute": _attribute(benchmark),
        "instances": (
            f"the first {MAX_INSTANCES} that are no crowd and not degenerate; others are ignore regions"
            if strict
            else f"the first {MAX_INSTANCES} annotations are shown; all are in prompt and ground truth"
        ),
        "crowds": (
            "never shown; ignore regions"
            if strict
            else "shown like objects; AP ignores them, the rest counts them"
        ),
        "canvas": _canvas(benchmark),
        "sampling": _settings(benchmark.sampling.model_dump(exclude_none=True)) or "the model's own settings",
        "evaluators": _settings(benchmark.evaluators.model_dump(exclude_none=True)) or "none",
        "metrics": ", ".join(
            f"{one.name} ({_settings(one.params)})" if one.params else one.name for one in benchmark.metrics
        ),
        "model": "" if benchmark.generator is None else f"{benchmark.generator} alone",
        "baseline": benchmark.baseline,
    }
    described = {topic: line for topic, line in lines.items() if line}
    for name in benchmark.deviations:
        described[f"deviation {name}"] = DEVIATIONS[name]
    return described


def _data(benchmark: Benchmark) -> str:
    data = benchmark.dataset
    count = "all images" if data.count is None else f"{data.count} images"
    frozen = "" if data.layouts_sha256 is None else f", layouts SHA-256 {data.layouts_sha256[:12]}…"
    if isinstance(data, CocoData):
        return f"{data.annotations}, {count}{frozen}"
    if isinstance(data, NamedData):
        by_file = frozen or ", identified by the SHA-256 of its annotation file"
        return f"{data.name} (`instbench data fetch {data.name}`), {count}{by_file}"
    return f"{data.world}, split {data.split}, {count}{frozen}"


def _conditions(benchmark: Benchmark) -> str:
    shown = ", ".join(str(one) for one in benchmark.conditions)
    if benchmark.hybrid:
        return f"{shown}: one of them per instance, by a hash of benchmark, image and annotation id"
    return shown or "none"


def _attribute(benchmark: Benchmark) -> str:
    if benchmark.attribute is None:
        return ""
    first = "" if benchmark.edition == "paper" else "the data's own word, else "
    return f"{benchmark.attribute}: {first}a fixed list by annotation id"


def _canvas(benchmark: Benchmark) -> str:
    seen = "" if benchmark.file_format == "png" else f", seen by the evaluators as {benchmark.file_format}"
    squared = (
        ""
        if benchmark.square_source is None
        else f", from data squashed to {benchmark.square_source} x {benchmark.square_source} first"
    )
    return f"{benchmark.canvas_size} x {benchmark.canvas_size} pixels{squared}{seen}"


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in settings.items()
    )
