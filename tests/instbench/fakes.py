"""Small stand-ins for networks: a generator that draws rectangles and evaluators that see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw
from scipy import ndimage

from instbench.evaluators.base import Detections
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.layouts import rle
from instbench.layouts.types import Condition

CANVAS = 48
PALETTE = {"cat": (200, 40, 40), "dog": (40, 160, 60)}
COLORS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 220), "black": (10, 10, 10)}


class FakeGenerator:
    """Fills the asked boxes with the colour of their category, on a grey that depends on the seed."""

    conditions = frozenset(Condition)

    def __init__(self, *, stop_after: int | None = None, error: BaseException | None = None) -> None:
        self.stop_after = stop_after
        self.error = error or KeyboardInterrupt()
        self.made: list[str] = []
        self.requests: list[GenerationRequest] = []
        self.calls = 0

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        self.calls += 1
        for request in requests:
            if self.stop_after is not None and len(self.made) >= self.stop_after:
                raise self.error
            self.requests.append(request)
            self.made.append(request.layout.image_key)
            yield GeneratedImage(request.layout.image_key, self.draw(request), {"calls": 1})

    def draw(self, request: GenerationRequest) -> Image.Image:
        size = request.canvas_size
        grey = 120 + request.seed % 20
        image = Image.new("RGB", (size, size), (grey, grey, grey))
        pen = ImageDraw.Draw(image)
        for instance in request.layout.instances:
            if instance.box_xyxy is not None:
                x0, y0, x1, y1 = (round(value * size) for value in instance.box_xyxy)
                pen.rectangle(
                    (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)),
                    fill=PALETTE.get(instance.category, (0, 0, 250)),
                )
        return image

    def identity(self) -> dict[str, Any]:
        return {"kind": "fake", "weights_sha256": "0" * 64}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        return SamplingSettings(num_inference_steps=settings.num_inference_steps or 3)


class FakeDetector:
    """Sees the connected patches of each category's colour."""

    categories = tuple(PALETTE)

    def __init__(self, threshold: int = 12) -> None:
        self.threshold = threshold
        self.seen = 0

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        self.seen += len(images)
        return [self._one(np.asarray(image, dtype=np.int32)) for image in images]

    def _one(self, pixels: np.ndarray) -> Detections:
        boxes, categories, masks = [], [], []
        for category, color in PALETTE.items():
            labels, count = ndimage.label((np.abs(pixels - color) < self.threshold).all(axis=2))
            for index in range(1, count + 1):
                mask = labels == index
                rows, columns = np.nonzero(mask)
                boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
                categories.append(category)
                masks.append(rle.encode(mask))
        return Detections(
            np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            np.full(len(boxes), 0.9, dtype=np.float32),
            tuple(categories),
            tuple(masks),
        )

    def identity(self) -> dict[str, Any]:
        return {"kind": "fake-detector", "threshold": self.threshold}


class FakeImageText:
    """Compares the mean colour of a picture with the colour word in a text."""

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        means = np.stack([np.asarray(image, dtype=np.float32).reshape(-1, 3).mean(0) for image in images])
        words = np.array([COLORS.get(text.split()[1], (999, 999, 999)) for text in texts], dtype=np.float32)
        distance = np.linalg.norm(means[:, None] - words[None], axis=2)
        return (1.0 - distance / 2000.0).astype(np.float32)

    def identity(self) -> dict[str, Any]:
        return {"kind": "fake-image-text"}


class FakeFeatures:
    """Mean colours of the four quarters."""

    num_features = 12

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        small = [np.asarray(image.resize((2, 2), Image.Resampling.BOX), dtype=np.float32) for image in images]
        return np.stack(small).reshape(len(images), 12) / 255.0

    def identity(self) -> dict[str, Any]:
        return {"kind": "fake-features"}


def write_coco(folder: Path, images: int = 5, *, categories: Sequence[str] = ("cat", "dog")) -> Path:
    """Writes a small COCO file (two objects per image) with captions and pictures; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    records: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    records["categories"] = [{"id": index + 1, "name": name} for index, name in enumerate(categories)]
    captions = []
    (folder / "real").mkdir(exist_ok=True)
    for index in range(images):
        image_id = 11 + index
        records["images"].append({"id": image_id, "file_name": f"{image_id}.png", "width": 96, "height": 48})
        picture = Image.new("RGB", (96, 48), (125, 125, 125))
        for slot in range(2):
            x, y, w, h = 6 + 48 * slot, 6 + 2 * index, 30, 20
            category = (index + slot) % len(categories)
            records["annotations"].append(
                {
                    "id": image_id * 10 + slot,
                    "image_id": image_id,
                    "category_id": category + 1,
                    "bbox": [x, y, w, h],
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
            color = PALETTE.get(categories[category], (0, 0, 250))
            ImageDraw.Draw(picture).rectangle((x, y, x + w - 1, y + h - 1), fill=color)
        picture.save(folder / "real" / f"{image_id}.png")
        captions.append({"id": index, "image_id": image_id, "caption": "A cat and a dog."})
    path = folder / "instances.json"
    path.write_text(json.dumps(records))
    (folder / "captions.json").write_text(json.dumps({"images": records["images"], "annotations": captions}))
    return path


def write_benchmark(folder: Path, *, name: str = "toy-box", **changes: Any) -> Path:
    """Writes a benchmark file over `write_coco` with the fake evaluators; returns its path."""
    if not (folder / "instances.json").exists():
        write_coco(folder)
    fields: dict[str, Any] = {
        "name": name,
        "version": 1,
        "edition": "strict",
        "description": "two rectangles",
        "dataset": {
            "kind": "coco",
            "annotations": "instances.json",
            "captions": "captions.json",
            "images": "real",
        },
        "conditions": ["box"],
        "canvas_size": CANVAS,
        "evaluators": {"detector": "fake", "image_text": "fake", "features": "fake"},
        "metrics": [{"name": one} for one in ("box_ap50", "mask_iou", "point_hit_rate", "fid")],
    }
    fields.update(changes)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path
