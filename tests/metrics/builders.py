"""Small COCO pairs for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 40, 60


def rectangle(x: int, y: int, w: int, h: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    return rle(mask)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def annotation(
    identifier: int, box: tuple[int, int, int, int], category: int = 1, image: int = 1, **extra: Any
) -> dict[str, Any]:
    entry = {
        "id": identifier,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "segmentation": rectangle(*box),
        "area": box[2] * box[3],
        "iscrowd": 0,
    }
    return {**entry, **extra}


def detection(
    box: tuple[int, int, int, int], score: float = 0.9, category: int = 1, image: int = 1, **extra: Any
) -> dict[str, Any]:
    entry = {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "segmentation": rectangle(*box),
        "score": score,
    }
    return {**entry, **extra}


def truth(*annotations: dict[str, Any], images: int = 1, categories: int = 3) -> dict[str, Any]:
    return {
        "images": [{"id": i + 1, "height": HEIGHT, "width": WIDTH} for i in range(images)],
        "annotations": list(annotations),
        "categories": [{"id": i + 1, "name": f"class {i + 1}"} for i in range(categories)],
    }


def random_box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    x, y = int(rng.integers(0, WIDTH - 8)), int(rng.integers(0, HEIGHT - 8))
    return x, y, int(rng.integers(3, WIDTH - x)), int(rng.integers(3, HEIGHT - y))


def random_pair(
    seed: int, *, images: int = 3, crowds: bool = True, categories: int = 3, crowded: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random annotations, and detections near them, elsewhere, twice, and with tied scores."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 6)):
            box, category = random_box(rng), int(rng.integers(1, categories + 1))
            crowd = int(crowds and rng.random() < 0.2)
            annotations.append(annotation(len(annotations) + 1, box, category, image, iscrowd=crowd))
            for _ in range(rng.integers(0, 3)):
                x, y = (max(0, v + int(rng.integers(-2, 3))) for v in box[:2])
                near = (x, y, min(box[2], WIDTH - x), min(box[3], HEIGHT - y))
                guess = category if rng.random() < 0.8 else int(rng.integers(1, categories + 1))
                detections.append(detection(near, round(float(rng.random()), 1), guess, image))
        for _ in range(130 if crowded else rng.integers(0, 3)):
            guess = int(rng.integers(1, categories + 1))
            detections.append(detection(random_box(rng), round(float(rng.random()), 1), guess, image))
        if detections and rng.random() < 0.3:
            detections.append(dict(detections[-1]))
    return truth(*annotations, images=images, categories=categories), detections


def perfect(gt: dict[str, Any], score: float = 1.0) -> list[dict[str, Any]]:
    """One detection on every annotation that is not a crowd."""
    return [
        {**{key: entry[key] for key in ("image_id", "category_id", "bbox", "segmentation")}, "score": score}
        for entry in gt["annotations"]
        if not entry["iscrowd"]
    ]
