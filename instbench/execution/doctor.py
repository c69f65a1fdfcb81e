"""Checks of an installation: each network on pictures whose content is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from instbench.execution.doctor_evaluators import Scenes, evaluator_checks, installed_evaluators
from instbench.execution.layouts import checked_layouts
from instbench.execution.plan import make_requests
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings

__all__ = ["Check", "run_checks"]

_SCENES = 16


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        passed: Whether it is as it should be.
        detail: What was seen, or the error.
    """

    name: str
    passed: bool
    detail: str


def run_checks(session: Session, evaluators: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Runs all checks; an error in one does not stop the others.

    Args:
        session: Loads the networks.
        evaluators: Names or paths by role. If there are any, only they are checked; else the layouts of all
            benchmarks, the evaluators that are shipped or in the folder of weights, and the models.

    Yields:
        Each check as it is done.
    """
    from instbench.benchmarks import benchmark_names

    if not evaluators:
        for name in benchmark_names():
            yield _guarded(f"layouts of {name}", partial(_check_layouts, name))
    scenes: Scenes = ((), [])

    def render() -> tuple[bool, str]:
        nonlocal scenes
        scenes = _render_scenes(session)
        return True, f"{len(scenes[1])} images"

    yield _guarded("real images of shapes-real", render)
    if scenes[1]:
        given = {role: [name] for role, name in (evaluators or {}).items()}
        for title, check in evaluator_checks(session, given or installed_evaluators(), scenes):
            yield _guarded(title, check)
    if not evaluators:
        for model in ("reference", "text-only"):
            yield _guarded(f"model {model}", partial(_check_model, session, model))


def _render_scenes(session: Session) -> Scenes:
    from instbench.benchmarks import load_benchmark

    benchmark = load_benchmark("shapes-real")
    layouts = checked_layouts(benchmark, _SCENES)
    requests = make_requests(benchmark, layouts, seed=0, sampling=SamplingSettings())
    renders = {one.image_key: one.image for one in session.generator("real-images").generate(requests)}
    return layouts, [renders[layout.image_key] for layout in layouts]


def _guarded(name: str, check: Callable[[], tuple[bool, str]]) -> Check:
    try:
        passed, detail = check()
    except Exception as error:  # the point of a check-up is to name every fault
        return Check(name, passed=False, detail=f"{type(error).__name__}: {error}")
    return Check(name, passed=passed, detail=detail)


def _check_layouts(name: str) -> tuple[bool, str]:
    from instbench.benchmarks import load_benchmark

    return True, f"{len(checked_layouts(load_benchmark(name)))} layouts, checksum as frozen"


def _check_model(session: Session, name: str) -> tuple[bool, str]:
    from instbench.benchmarks import load_benchmark

    benchmark = load_benchmark("shapes-box")
    generator = session.generator(name)
    sampling = generator.resolve_sampling(SamplingSettings())
    requests = make_requests(benchmark, checked_layouts(benchmark, 1), seed=0, sampling=sampling)
    image = next(iter(generator.generate(requests))).image
    spread = float(np.asarray(image.convert("RGB"), dtype=np.float32).std())
    return spread > 1.0, f"one image {image.width}x{image.height}, standard deviation {spread:.0f} of 255"
