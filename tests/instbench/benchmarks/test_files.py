"""Rules that hold for every benchmark file that ships."""

from __future__ import annotations

import subprocess
import sys

import pytest

from instbench.benchmarks.describe import describe_benchmark
from instbench.benchmarks.deviations import DEVIATIONS
from instbench.benchmarks.loading import benchmark_files, load_benchmark
from instbench.benchmarks.schema import Benchmark
from instbench.execution.catalog import METRICS, check_metrics
from instbench.layouts.prompts import PROMPT_RULES
from instbench.layouts.types import Condition

EVERY = [(name, edition) for name, editions in benchmark_files().items() for edition in editions]
FORMATS = ("box", "mask", "point", "scribble")
SHOWN_AS_PUBLISHED = {
    "box": {"box", "point"},
    "mask": {"box", "point", "mask"},
    "point": {"point"},
    "scribble": {"box", "point", "scribble", "mask"},
    "color": {"box", "point", "mask"},
    "texture": {"box", "point", "mask"},
}


@pytest.fixture(params=EVERY, ids=lambda one: ".".join(one))
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    return load_benchmark(*request.param)


def test_a_file_fits_its_name_the_schema_and_the_metrics(benchmark: Benchmark) -> None:
    check_metrics(benchmark)
    assert benchmark.prompt in PROMPT_RULES
    assert benchmark.description.endswith((".", ",")) is False
    roles = {
        role
        for metric in benchmark.metrics
        for role in ("features" if metric.name == "fid" else "detector",)
        if not metric.name.endswith("_paper")
    }
    named = benchmark.evaluators.model_dump(exclude_none=True)
    assert roles <= set(named)
    if any(name.startswith(("color", "texture")) for name in (one.name for one in benchmark.metrics)):
        assert benchmark.evaluators.image_text is not None


def test_strict_benchmarks_show_the_format_that_they_are_named_after(benchmark: Benchmark) -> None:
    if benchmark.edition != "strict":
        return
    kind = benchmark.name.rpartition("-")[2]
    expected = {
        **{name: {name} for name in FORMATS},
        "hybrid": set(FORMATS),
        "color": {"mask"},
        "texture": {"mask"},
        "real": set(),
    }[kind]
    assert set(benchmark.conditions) == expected
    assert benchmark.hybrid == (kind == "hybrid")
    assert benchmark.generator == ("real-images" if kind == "real" else None)


def test_paper_benchmarks_show_what_the_published_configurations_show(benchmark: Benchmark) -> None:
    if benchmark.edition != "paper":
        return
    kind = benchmark.name.rpartition("-")[2]
    assert set(benchmark.conditions) == SHOWN_AS_PUBLISHED[kind]
    assert (benchmark.file_format, benchmark.square_source) == ("jpeg-q75", 512)
    assert benchmark.prompt == "caption+names"
    always = {"crowds-shown", "over-30-in-ground-truth", "prompt-no-separator", "jpeg-q75", "derived-seeds"}
    assert always <= set(benchmark.deviations)
    names = {metric.name for metric in benchmark.metrics}
    for deviation, holds in {
        "leaked-conditions": len(benchmark.conditions) > 1,
        "point-box-centre": Condition.POINT in benchmark.conditions,
        "single-instance-segment": Condition.MASK in benchmark.conditions,
        "pim-greedy": any(name.startswith("pim_") for name in names),
        "pim-redrawn-scribble": "pim_scribble" in names,
        "attribute-input-box": any(name.endswith("_paper") for name in names),
    }.items():
        assert (deviation in benchmark.deviations) == holds, deviation


def test_the_description_says_what_the_file_says(benchmark: Benchmark) -> None:
    lines = describe_benchmark(benchmark)
    assert {
        "data",
        "conditions",
        "prompt",
        "instances",
        "crowds",
        "sampling",
        "evaluators",
        "metrics",
    } <= set(lines)
    for metric in benchmark.metrics:
        assert metric.name in lines["metrics"]
        assert metric.name in METRICS
    for name in benchmark.evaluators.model_dump(exclude_none=True).values():
        assert name in lines["evaluators"]
    deviations = {name.removeprefix("deviation ") for name in lines if name.startswith("deviation ")}
    assert deviations == set(benchmark.deviations)
    for condition in benchmark.conditions:
        assert str(condition) in lines["conditions"]


def test_listing_imports_no_heavy_library() -> None:
    script = (
        "import sys; from instbench.cli.main import main; code = main(['ls', 'benchmarks', '--verbose']); "
        "heavy = {'torch', 'torchvision', 'diffusers', 'transformers', 'ultralytics', 'open_clip'}; "
        "sys.exit(code or ', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, edition in EVERY:
        listed = name if edition == "strict" else f"{name} --edition {edition}"
        assert f"  {listed} " in done.stdout
    assert "deviation jpeg-q75: " + DEVIATIONS["jpeg-q75"] in done.stdout
