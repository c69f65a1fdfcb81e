"""Layouts and requests for the generators' tests."""

from __future__ import annotations

import numpy as np

from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.layouts.rle import encode
from instbench.layouts.types import Condition, Instance, Layout

BOX = frozenset({Condition.BOX})


def instance(number: int = 0, **changes) -> Instance:
    """An instance with all four formats."""
    mask = np.zeros((16, 16), dtype=bool)
    mask[2 + number : 8 + number, 3:9] = True
    fields = {
        "phrase": f"thing {number}",
        "category": "thing",
        "category_id": 1,
        "annotation_id": number + 1,
        "box_xyxy": (0.2, 0.1 + 0.05 * number, 0.6, 0.5 + 0.05 * number),
        "mask": encode(mask),
        "point_xy": (0.4, 0.3),
        "scribble_xy": ((0.3, 0.2), (0.4, 0.3), (0.5, 0.4)),
        "mask_points_xy": tuple((0.2 + 0.01 * i, 0.3) for i in range(8)),
    }
    return Instance(**{**fields, **changes})


def layout(key: str = "img-1", *instances: Instance, **changes) -> Layout:
    """A layout of a 16x16 source image."""
    fields = {
        "image_key": key,
        "dataset": "toy",
        "image_id": 1,
        "caption": "a scene",
        "source_width": 16,
        "source_height": 16,
        "instances": instances,
    }
    return Layout(**{**fields, **changes})


def request(wanted: Layout, conditions=BOX, seed: int = 0, canvas: int = 16, **sampling) -> GenerationRequest:
    """A request for a layout, not restricted: generators must withhold formats themselves."""
    return GenerationRequest(wanted, frozenset(conditions), seed, canvas, SamplingSettings(**sampling))
