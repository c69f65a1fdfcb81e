"""Measures a trained evaluator on held-out scenes."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instbench.errors import InputError
from instbench.evaluators.base import Detections, Detector, FeatureExtractor, ImageTextModel
from instbench.evaluators.folders import (
    DetectorCard,
    EvaluatorCard,
    FeaturesCard,
    ImageTextCard,
    card_kind,
    read_card,
    write_card,
)
from instbench.evaluators.loading import load_detector, load_features, load_image_text
from instbench.evaluators.training.augment import degrade
from instbench.evaluators.training.model_card import write_model_card
from instbench.evaluators.training.scenes import SceneSet, load_scenes
from instbench.layouts import rle
from metrics import frechet_from_features

__all__ = ["measure", "measure_detector", "measure_features", "measure_image_text"]

logger = logging.getLogger(__name__)

_CHUNK = 32

T = TypeVar("T")


def measure(folder: Path, data: Path, *, limit: int | None = None, write: bool = False) -> dict[str, float]:
    """Measures an evaluator folder on the scenes of a COCO-format folder.

    Args:
        folder: The evaluator.
        data: Held-out scenes.
        limit: Number of scenes; all by default.
        write: Whether to keep the figures in ``evaluator.json``, under the name of the data folder.

    Returns:
        The figures by name; those that end in ``_degraded`` are on slightly blurred, noisy or
        recompressed images.

    Raises:
        InputError: The folder is no evaluator, or the data is unreadable.
    """
    scenes = load_scenes(data, limit)
    kinds: dict[str, type[EvaluatorCard]] = {
        "ultralytics-segment": DetectorCard,
        "open-clip": ImageTextCard,
        "resnet-features": FeaturesCard,
    }
    kind = card_kind(folder)
    if kind not in kinds:
        raise InputError(f"{folder}/evaluator.json: unknown kind {kind!r}; known: {', '.join(kinds)}")
    if kind == "ultralytics-segment":
        figures = measure_detector(load_detector(folder), scenes)
    elif kind == "open-clip":
        figures = measure_image_text(load_image_text(folder), scenes)
    else:
        figures = measure_features(load_features(folder), scenes)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    if write:
        card = read_card(folder, kinds[kind])
        measured = card.model_copy(update={"figures": {**card.figures, data.name: rounded}})
        write_card(folder, measured)
        write_model_card(folder, measured)
    return rounded


def measure_detector(detector: Detector, scenes: SceneSet) -> dict[str, float]:
    """COCO average precision and recall of boxes and masks, on the scenes and on degraded ones."""
    figures: dict[str, float] = {}
    for suffix, images in (("", _pictures(scenes)), ("_degraded", _degraded(scenes))):
        found = [d for chunk in _chunks(images) for d in detector.detect(chunk)]
        figures |= {f"{name}{suffix}": value for name, value in _coco_figures(scenes, found).items()}
    return figures


def _coco_figures(scenes: SceneSet, found: Sequence[Detections]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {name: position for position, name in enumerate(scenes.categories, start=1)}
    truth, predictions = _coco_truth(scenes, ids), _coco_predictions(found, ids)
    if not predictions:
        return {}
    figures: dict[str, float] = {}
    # pycocotools reports on standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        results = reference.loadRes(predictions)
        for name, kind in (("box", "bbox"), ("mask", "segm")):
            evaluation = COCOeval(reference, results, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            ap, ap50, ap75 = (float(value) for value in evaluation.stats[:3])
            figures |= {f"{name}_ap": ap, f"{name}_ap50": ap50, f"{name}_ap75": ap75}
            figures[f"{name}_ar100"] = float(evaluation.stats[8])
    return figures


def _coco_truth(scenes: SceneSet, ids: dict[str, int]) -> dict[str, Any]:
    height, width = scenes.images.shape[1:3]
    annotations: list[dict[str, Any]] = []
    for image, (objects, instances) in enumerate(
        zip(scenes.objects, scenes.instance_maps, strict=True), start=1
    ):
        for number, (box, category) in enumerate(
            zip(objects.boxes_xyxy, objects.categories, strict=True), start=1
        ):
            mask = instances == number
            x0, y0, x1, y1 = (float(value) for value in box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": ids[category],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": rle.to_coco(rle.encode(mask)),
                }
            )
    return {
        "info": {},
        "images": [{"id": i, "height": height, "width": width} for i in range(1, len(scenes) + 1)],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
        "annotations": annotations,
    }


def _coco_predictions(found: Sequence[Detections], ids: dict[str, int]) -> list[dict[str, Any]]:
    rows = []
    for image, detections in enumerate(found, start=1):
        masks = detections.masks or ()
        for number, (box, category) in enumerate(
            zip(detections.boxes_xyxy, detections.categories, strict=True)
        ):
            if category not in ids:
                continue
            x0, y0, x1, y1 = (float(value) for value in box)
            row = {
                "image_id": image,
                "category_id": ids[category],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": float(detections.scores[number]),
            }
            if masks:
                row["segmentation"] = rle.to_coco(masks[number])
            rows.append(row)
    return rows


def measure_image_text(model: ImageTextModel, scenes: SceneSet) -> dict[str, float]:
    """Share of annotated crops whose nearest prompt is the true colour, texture and shape."""
    from instbench.evaluators.training.image_text import COLOR_PROMPT, SHAPE_PROMPT, TEXTURE_PROMPT, crop_box

    figures: dict[str, float] = {}
    for suffix, images in (("", _pictures(scenes)), ("_degraded", _degraded(scenes))):
        crops = [
            Image.fromarray(crop_box(np.asarray(image), box))
            for image, objects in zip(images, scenes.objects, strict=True)
            for box in objects.boxes_xyxy
        ]
        for name, template, words in (
            ("color", COLOR_PROMPT, [w for objects in scenes.objects for w in objects.colors]),
            ("texture", TEXTURE_PROMPT, [w for objects in scenes.objects for w in objects.textures]),
            ("shape", SHAPE_PROMPT, [w for objects in scenes.objects for w in objects.categories]),
        ):
            choices = sorted(set(words))
            prompts = [template.format(word) for word in choices]
            scores = np.concatenate([model.similarity(chunk, prompts) for chunk in _chunks(crops)])
            answers = [choices[int(index)] for index in scores.argmax(axis=1)]
            correct = [answer == word for answer, word in zip(answers, words, strict=True)]
            figures[f"{name}_accuracy{suffix}"] = float(np.mean(correct))
    return figures


def measure_features(extractor: FeatureExtractor, scenes: SceneSet) -> dict[str, float]:
    """Fréchet distances that a good extractor orders: halves of the data < degraded < emptied images."""
    pictures = _pictures(scenes)
    half = len(pictures) // 2
    blurred = _degraded(scenes)[:half]
    # Every object painted over with the mean colour of its scene's background.
    emptied = [_emptied(scenes.images[i], scenes.instance_maps[i]) for i in range(half)]
    features = [
        np.concatenate([extractor.features(chunk) for chunk in _chunks(images)])
        for images in (pictures[half:], pictures[:half], blurred, emptied)
    ]
    reference, *others = features
    values = (frechet_from_features(rows, reference).value for rows in others)
    names = ("fid_halves", "fid_degraded", "fid_emptied")
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _emptied(image: NDArray[np.uint8], instances: NDArray[np.uint8]) -> Image.Image:
    out = image.copy()
    out[instances > 0] = image[instances == 0].mean(axis=0)
    return Image.fromarray(out)


def _pictures(scenes: SceneSet) -> list[Image.Image]:
    return [Image.fromarray(image) for image in scenes.images]


def _degraded(scenes: SceneSet) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(degrade(image, rng, clean_share=0.0)) for image in scenes.images]


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
