"""Which detection answers which asked instance, one to one.

The rule behind `found`, the crops for attributes and the IoU columns of a run: a detection answers an
instance if it is of its class, scores at least 0.3 and overlaps its box with an IoU of at least 0.1.
Detections are given out for the most pairs at IoU 0.5 or more, then for the largest sum of IoU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from instbench.evaluators.base import Detections
from instbench.layouts.geometry import boxes_xyxy_to_pixels, boxes_xyxy_to_xywh
from instbench.layouts.types import Layout

__all__ = ["MATCH_RULE", "Match", "coco_results", "match_layout"]

MATCH_RULE: Mapping[str, float] = {"score_threshold": 0.3, "min_iou": 0.1, "hit_iou": 0.5}


@dataclass(frozen=True, slots=True)
class Match:
    """The detection that answers an instance.

    Attributes:
        detection: Index of the detection in its image.
        score: Its score.
        iou: IoU of the asked and the detected box.
    """

    detection: int
    score: float
    iou: float


def coco_results(seen: Detections, image_id: int, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Turns the detections of an image into COCO results.

    Args:
        seen: Detections.
        image_id: Id of the image.
        category_ids: Ids by category name; detections of other categories are left out.

    Returns:
        COCO results; ``index`` is the position in `seen`.
    """
    results = []
    boxes = boxes_xyxy_to_xywh(np.asarray(seen.boxes_xyxy).reshape(-1, 4))
    for index, category in enumerate(seen.categories):
        if category not in category_ids:
            continue
        result: dict[str, Any] = {
            "image_id": image_id,
            "category_id": category_ids[category],
            "bbox": [float(value) for value in boxes[index]],
            "score": float(seen.scores[index]),
            "index": index,
        }
        if seen.masks is not None:
            mask = seen.masks[index]
            result["segmentation"] = {"size": [mask.height, mask.width], "counts": mask.counts}
        results.append(result)
    return results


def match_layout(layout: Layout, detections: Detections, canvas_size: int) -> list[Match | None]:
    """Assigns detections to the requested instances of a layout.

    Args:
        layout: Full layout; every requested instance has a box.
        detections: Detections in its image.
        canvas_size: Side of the image in pixels.

    Returns:
        One entry per requested instance, None where no detection answers it.
    """
    from metrics import match_instances

    requested = layout.requested
    if not requested or not len(detections):
        return [None] * len(requested)
    relative = np.array([one.box_xyxy for one in requested], dtype=np.float64)
    boxes = boxes_xyxy_to_pixels(relative, canvas_size, canvas_size)
    ids = {one.category: one.category_id for one in requested}
    truth = {
        "images": [{"id": layout.image_id, "width": canvas_size, "height": canvas_size}],
        "categories": [{"id": category_id, "name": name} for name, category_id in ids.items()],
        "annotations": [
            {
                "id": index,
                "image_id": layout.image_id,
                "category_id": one.category_id,
                "bbox": [float(value) for value in boxes_xyxy_to_xywh(box)],
                "area": 1.0,
                "iscrowd": 0,
            }
            for index, (one, box) in enumerate(zip(requested, boxes, strict=True))
        ],
    }
    results = coco_results(detections, layout.image_id, ids)
    rule = MATCH_RULE
    matched = match_instances(
        truth,
        [{name: value for name, value in one.items() if name != "segmentation"} for one in results],
        score_threshold=rule["score_threshold"],
        min_iou=rule["min_iou"],
        hit_iou=rule["hit_iou"],
    )
    found = {row.annotation_id: row for row in matched.per_instance}
    matches: list[Match | None] = []
    for index in range(len(requested)):
        row = found[index]
        if row.detection is None or row.score is None or row.iou is None:
            matches.append(None)
        else:
            matches.append(Match(results[row.detection]["index"], row.score, row.iou))
    return matches
