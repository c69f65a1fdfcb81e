"""Checks of an installation: each network on pictures whose content is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from instbench.execution.crops import attribute_labels, attribute_prompts, crop_box
from instbench.execution.layouts import checked_layouts
from instbench.execution.matching import match_layout
from instbench.execution.plan import make_requests
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.layouts.types import Layout

__all__ = ["Check", "run_checks"]

_SCENES = 16
_ENOUGH = 0.9


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


def run_checks(session: Session) -> Iterator[Check]:
    """Runs all checks; an error in one does not stop the others.

    Args:
        session: Loads the networks.

    Yields:
        Each check as it is done.
    """
    from instbench.benchmarks import benchmark_names, load_benchmark

    for name in benchmark_names():
        if load_benchmark(name).dataset.layouts_sha256 is None:
            continue  # data that is fetched; `instbench data verify` checks its files
        yield _guarded(f"layouts of {name}", lambda name=name: _check_layouts(name))  # type: ignore[misc]
    layouts: tuple[Layout, ...] = ()
    images: list[Image.Image] = []

    def render() -> tuple[bool, str]:
        nonlocal layouts
        benchmark = load_benchmark("shapes-real")
        layouts = checked_layouts(benchmark, _SCENES)
        requests = make_requests(benchmark, layouts, seed=0, sampling=SamplingSettings())
        renders = {one.image_key: one.image for one in session.generator("real-images").generate(requests)}
        images.extend(renders[layout.image_key] for layout in layouts)
        return True, f"{len(images)} images"

    yield _guarded("real images of shapes-real", render)
    if images:
        yield _guarded("detector shapes-yolo", lambda: _check_detector(session, layouts, images))
        yield _guarded("image-text model shapes-clip", lambda: _check_image_text(session, layouts, images))
        yield _guarded("feature extractor shapes-features", lambda: _check_features(session, images))
    for model in ("reference", "text-only"):
        yield _guarded(f"model {model}", lambda model=model: _check_model(session, model))  # type: ignore[misc]


def _guarded(name: str, check: Callable[[], tuple[bool, str]]) -> Check:
    try:
        passed, detail = check()
    except Exception as error:  # the point of a check-up is to name every fault
        return Check(name, passed=False, detail=f"{type(error).__name__}: {error}")
    return Check(name, passed=passed, detail=detail)


def _check_layouts(name: str) -> tuple[bool, str]:
    from instbench.benchmarks import load_benchmark

    return True, f"{len(checked_layouts(load_benchmark(name)))} layouts, checksum as frozen"


def _check_detector(
    session: Session, layouts: tuple[Layout, ...], images: list[Image.Image]
) -> tuple[bool, str]:
    detections = session.evaluator("detector", "shapes-yolo").detect(images)
    found = asked = 0
    for layout, image, seen in zip(layouts, images, detections, strict=True):
        matches = match_layout(layout, seen, image.width)
        asked += len(matches)
        found += sum(match is not None and match.iou >= 0.5 for match in matches)
    return found >= _ENOUGH * asked, f"{found} of {asked} objects found"


def _check_image_text(
    session: Session, layouts: tuple[Layout, ...], images: list[Image.Image]
) -> tuple[bool, str]:
    model = session.evaluator("image_text", "shapes-clip")
    crops, colors = [], []
    for layout, image in zip(layouts, images, strict=True):
        for instance in layout.requested:
            if instance.box_xyxy is None or instance.color is None:
                continue
            x0, y0, x1, y1 = (value * image.width for value in instance.box_xyxy)
            crop = crop_box(image, (x0, y0, x1, y1))
            if crop is not None:
                crops.append(crop)
                colors.append(instance.color)
    labels = attribute_labels("color", frozenset(colors))
    best = model.similarity(crops, attribute_prompts(labels)).argmax(axis=1)
    right = sum(labels[index] == color for index, color in zip(best, colors, strict=True))
    return right >= _ENOUGH * len(colors), f"{right} of {len(colors)} colours named"


def _check_features(session: Session, images: list[Image.Image]) -> tuple[bool, str]:
    model = session.evaluator("features", "shapes-features")
    features = model.features(images)
    finite = bool(np.isfinite(features).all())
    differ = len(np.unique(features.round(4), axis=0)) == len(images)
    shape = features.shape == (len(images), model.num_features)
    return finite and differ and shape, f"{features.shape[1]} features, finite {finite}, distinct {differ}"


def _check_model(session: Session, name: str) -> tuple[bool, str]:
    from instbench.benchmarks import load_benchmark

    benchmark = load_benchmark("shapes-box")
    generator = session.generator(name)
    sampling = generator.resolve_sampling(SamplingSettings())
    requests = make_requests(benchmark, checked_layouts(benchmark, 1), seed=0, sampling=sampling)
    image = next(iter(generator.generate(requests))).image
    spread = float(np.asarray(image.convert("RGB"), dtype=np.float32).std())
    return spread > 1.0, f"one image {image.width}x{image.height}, standard deviation {spread:.0f} of 255"
