"""Small synthetic COCO files and hypothesis strategies, shared by the tests of layouts and datasets."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def square(x: float, y: float, side: float) -> list[float]:
    """Polygon of a square."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(identifier: int, image_id: int = 1, **changes: Any) -> dict[str, Any]:
    """A 10x10 square at (20, 10) unless changed."""
    record = {
        "id": identifier,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [20, 10, 10, 10],
        "area": 100,
        "iscrowd": 0,
        "segmentation": [square(20, 10, 10)],
    }
    return record | changes


def coco(*annotations: dict[str, Any], images: int = 1, width: int = 80, height: int = 60) -> dict[str, Any]:
    """An instances dict with images 1..n of one size."""
    return {
        "images": [
            {"id": n, "width": width, "height": height, "file_name": f"{n}.png"} for n in range(1, images + 1)
        ],
        "annotations": list(annotations),
        "categories": CATEGORIES,
    }


def captions(*texts: str, image_id: int = 1) -> dict[str, Any]:
    """A captions dict for one image."""
    return {"annotations": [{"id": n, "image_id": image_id, "caption": text} for n, text in enumerate(texts)]}


def crowd(identifier: int, image_id: int = 1) -> dict[str, Any]:
    """A crowd region: the left half of an 80x60 image as uncompressed run lengths."""
    rle = {"size": [60, 80], "counts": [0, 2400, 2400]}
    return annotation(identifier, image_id, iscrowd=1, segmentation=rle, bbox=[0, 0, 40, 60], area=2400)
