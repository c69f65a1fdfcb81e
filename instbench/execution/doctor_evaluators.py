"""Checks of evaluators: does each see what is in pictures whose content is known?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from instbench.evaluators.base import Detections, Detector, FeatureExtractor, ImageTextModel
from instbench.evaluators.categories import named_for
from instbench.execution.crops import attribute_labels, attribute_prompts, crop_box
from instbench.execution.known_pictures import OBJECTS, TEXTS, photograph
from instbench.execution.matching import match_layout
from instbench.execution.session import Session
from instbench.layouts.types import Layout
from instbench.registry import EVALUATOR_ROLES

__all__ = ["Scenes", "evaluator_checks", "installed_evaluators"]

Verdict = tuple[bool, str]
Scenes = tuple[tuple[Layout, ...], list[Image.Image]]
"""Layouts of Shapes and their renders."""

_SHIPPED = {"detector": "shapes-yolo", "image_text": "shapes-clip", "features": "shapes-features"}
_ENOUGH = 0.9
_CONFIDENT = 0.3
_OVERLAP = 0.5
_OBJECTS_NEEDED = len(OBJECTS) - 1
_TEXTS_NEEDED = len(TEXTS) - 1


def installed_evaluators() -> dict[str, list[str]]:
    """Names to check by role: those that are shipped, and known ones whose file is in the folder of weights."""
    from instbench.evaluators.known_weights import INCEPTION, YOLO, weights_home

    home = weights_home()
    names = {role: [name] for role, name in _SHIPPED.items()}
    names["detector"] += [name for name, known in YOLO.items() if (home / known.file_name).is_file()]
    names["image_text"] += [
        f"{path.parent.name}/{path.stem}" for path in sorted(home.glob("*/*")) if _is_weights(path)
    ]
    if (home / INCEPTION.file_name).is_file():
        names["features"].append("inception")
    return names


def _is_weights(path: Any) -> bool:
    return path.suffix in (".safetensors", ".bin", ".pt", ".pth")


def evaluator_checks(
    session: Session, names: dict[str, list[str]], scenes: Scenes
) -> Iterator[tuple[str, Callable[[], Verdict]]]:
    """Yields a title and a check for each evaluator.

    Args:
        session: Loads the networks.
        names: Names or paths by role.
        scenes: Shapes scenes and their renders.
    """
    checks: dict[str, Callable[[Any, Scenes], Verdict]] = {
        "detector": check_detector,
        "image_text": check_image_text,
        "features": check_features,
    }
    for role, (registry, _) in EVALUATOR_ROLES.items():
        for name in names.get(role, []):
            yield (
                f"{registry.kind} {name}",
                partial(_load_and_check, session, role, name, checks[role], scenes),
            )


def _load_and_check(
    session: Session, role: str, name: str, check: Callable[[Any, Scenes], Verdict], scenes: Scenes
) -> Verdict:
    return check(session.evaluator(role, name), scenes)


def check_detector(detector: Detector, scenes: Scenes) -> Verdict:
    """A detector of Shapes on renders; any other on photographs of a person, a cat, a cup and a motorcycle."""
    layouts, images = scenes
    shapes = {one.category for layout in layouts for one in layout.requested}
    if shapes & set(detector.categories):
        found = asked = 0
        for layout, image, seen in zip(layouts, images, detector.detect(images), strict=True):
            matches = match_layout(layout, seen, image.width)
            asked += len(matches)
            found += sum(match is not None and match.iou >= _OVERLAP for match in matches)
        return found >= _ENOUGH * asked, f"{found} of {asked} objects found"
    named = named_for(detector, [one.category for one in OBJECTS.values()])
    missed = []
    for name, known in OBJECTS.items():
        if not _sees(named.detect([photograph(name)])[0], known.category, known.box_xyxy):
            missed.append(f"the {known.category} in {name}")
    right = len(OBJECTS) - len(missed)
    detail = f"{right} of {len(OBJECTS)} objects found in photographs"
    return right >= _OBJECTS_NEEDED, detail + (f", not {', '.join(missed)}" if missed else "")


def _sees(seen: Detections, category: str, box_xyxy: Sequence[float]) -> bool:
    """Whether the surest detection of all is the object."""
    if not len(seen) or seen.scores[0] < _CONFIDENT or seen.categories[0] != category:
        return False
    return _iou(seen.boxes_xyxy[0], np.asarray(box_xyxy, dtype=np.float32)) >= _OVERLAP


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    overlap = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    return float(overlap / (areas - overlap))


def check_image_text(model: ImageTextModel, scenes: Scenes) -> Verdict:
    """Colours of Shapes, or eight photographs with their descriptions; one of the two is enough."""
    right, asked = _colours_named(model, scenes)
    if right >= _ENOUGH * asked:
        return True, f"{right} of {asked} colours named"
    scores = model.similarity([photograph(name) for name in TEXTS], list(TEXTS.values()))
    described = int((scores.argmax(axis=1) == np.arange(len(TEXTS))).sum())
    return described >= _TEXTS_NEEDED, (
        f"{described} of {len(TEXTS)} photographs and {right} of {asked} colours of Shapes described"
    )


def _colours_named(model: ImageTextModel, scenes: Scenes) -> tuple[int, int]:
    crops, colors = [], []
    for layout, image in zip(*scenes, strict=True):
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
    return sum(labels[index] == color for index, color in zip(best, colors, strict=True)), len(colors)


def check_features(extractor: FeatureExtractor, scenes: Scenes) -> Verdict:
    """Features are finite, the same twice, apart for different pictures, and near for a mirrored one."""
    images = scenes[1]
    features, again = extractor.features(images), extractor.features(images)
    mirrored = extractor.features([ImageOps.mirror(image) for image in images])
    apart = np.linalg.norm(features[:, None] - mirrored[None], axis=2)
    near = int((apart.argmin(axis=1) == np.arange(len(images))).sum())
    faults = [
        fault
        for fault, is_one in (
            ("not finite", not np.isfinite(features).all()),
            ("not the same twice", not np.array_equal(features, again)),
            ("of the wrong shape", features.shape != (len(images), extractor.num_features)),
            ("the same for different pictures", len(np.unique(features, axis=0)) < len(images)),
            (
                f"near to those of the mirrored picture in {near} of {len(images)} only",
                near < len(images) / 2,
            ),
        )
        if is_one
    ]
    return not faults, f"features {', '.join(faults)}" if faults else f"{features.shape[1]} features, sound"
