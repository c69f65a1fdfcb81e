"""A tiny COCO-format folder: coloured squares and discs on grey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_COLORS = {"red": (220, 30, 30), "blue": (30, 60, 220)}
_TEXTURES = ("plain", "striped")
_CATEGORIES = ("circle", "square")


def write_folder(root: Path, count: int = 8, size: int = 64) -> Path:
    """Writes ``count`` scenes of two objects each."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations, captions = [], [], []
    for index in range(count):
        pixels = np.full((size, size, 3), 128, np.uint8)
        levels: list[list[str]] = []
        for position in range(2):
            color, texture = rng.choice(list(_COLORS)), rng.choice(_TEXTURES)
            category = int(rng.integers(2))
            left, top = position * size // 2, int(rng.integers(0, size // 2))
            side = size // 2 - 8
            pixels[top : top + side, left : left + side] = _COLORS[color]
            name = _CATEGORIES[category]
            levels.append([f"{color} {texture} {name}", f"{color} {name}", f"{texture} {name}", name])
            annotations.append(
                {
                    "id": 10 * index + position,
                    "image_id": index,
                    "category_id": category + 1,
                    "bbox": [left, top, side, side],
                    "captions": levels[-1],
                    "attributes": {"color": str(color), "texture": str(texture)},
                }
            )
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "width": size, "height": size})
        captions += [
            {
                "id": 10 * index + at,
                "image_id": index,
                "caption": f"a {first} and a {second} on a grey background",
            }
            for at, (first, second) in enumerate(zip(*levels, strict=True))
        ]
    categories = [{"id": at + 1, "name": name} for at, name in enumerate(_CATEGORIES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "captions.json").write_text(json.dumps({"annotations": captions}), encoding="utf-8")
    return root


@pytest.fixture
def training_folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")
