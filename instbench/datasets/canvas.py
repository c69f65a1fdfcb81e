"""Ground truth on the square canvas as a COCO-format folder: the "customised 512x512 JSON", made again.

Every image is resized to S x S without keeping its shape, and its annotations with it. The rule, for an
image of w x h pixels:

- box: x and width times S/w, y and height times S/h; not clipped, not rounded;
- polygon: every point times (S/w, S/h); parts of fewer than three points are left out;
- run lengths: decoded, resized by the nearest pixel (the source pixel below the target's centre, which is
  PIL's ``NEAREST``), encoded again as compressed counts;
- a mask that vanishes on the canvas keeps one pixel (`instbench.layouts.ground_truth.canvas_mask`);
- area: pixels of the new mask; of the new box where there is no mask;
- ids, ``iscrowd``, categories and every other field are kept; ``file_name`` becomes the image's key, ``.png``;
- degenerate annotations (zero-area or outside box, empty mask) are kept and marked ``"ignore": 1`` with
  ``"ignore_reason": "degenerate"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instbench.datasets.validation import degenerate_box_reason
from instbench.errors import InputError
from instbench.layouts.from_coco import image_key
from instbench.layouts.geometry import (
    boxes_xywh_to_xyxy,
    boxes_xyxy_to_pixels,
    boxes_xyxy_to_relative,
    boxes_xyxy_to_xywh,
)
from instbench.layouts.ground_truth import canvas_mask
from instbench.layouts.rle import MAX_SIDE, area, from_coco_segmentation, to_coco, usable_polygons
from instbench.progress import track

__all__ = ["CANVAS_RULE", "CanvasCounts", "scale_annotations"]

CANVAS_RULE = 1
"""Version of the rule above; it goes into the manifest."""


@dataclass(frozen=True, slots=True)
class CanvasCounts:
    """What is in the scaled annotations.

    Attributes:
        images: Images.
        annotations: Annotations, all kinds.
        crowds: Those with ``iscrowd``.
        degenerate: Those marked degenerate.
    """

    images: int
    annotations: int
    crowds: int
    degenerate: int


def scale_annotations(data: Mapping[str, Any], size: int) -> tuple[dict[str, Any], CanvasCounts]:
    """Annotations on a square canvas, by the rule above.

    Args:
        data: Content of a checked COCO or LVIS instances file.
        size: Side of the canvas in pixels.

    Returns:
        The scaled content, records in the order of the file, and its counts.

    Raises:
        InputError: If the size is out of range or a mask is malformed; names the annotation.
    """
    if not 1 <= size <= MAX_SIDE:
        raise InputError(f"canvas size must be from 1 to {MAX_SIDE} pixels, not {size}")
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    images = [
        image | {"width": size, "height": size, "file_name": f"{image_key(image['id'])}.png"}
        for image in data["images"]
    ]
    annotations = [
        _scale(annotation, *sizes[annotation["image_id"]], size)
        for annotation in track(data["annotations"], description=f"scaling to {size}x{size}")
    ]
    counts = CanvasCounts(
        images=len(images),
        annotations=len(annotations),
        crowds=sum(annotation.get("iscrowd", 0) for annotation in annotations),
        degenerate=sum(annotation.get("ignore_reason") == "degenerate" for annotation in annotations),
    )
    return dict(data) | {"images": images, "annotations": annotations}, counts


def _scale(annotation: Mapping[str, Any], width: int, height: int, size: int) -> dict[str, Any]:
    source_box = [float(value) for value in annotation["bbox"]]
    corners = boxes_xyxy_to_relative(boxes_xywh_to_xyxy(source_box), width, height)
    box = [float(value) for value in boxes_xyxy_to_xywh(boxes_xyxy_to_pixels(corners, size, size))]
    scaled = dict(annotation) | {"bbox": box, "area": max(box[2], 0.0) * max(box[3], 0.0)}
    degenerate = degenerate_box_reason(source_box, width, height) is not None
    segmentation = annotation.get("segmentation")
    if segmentation:
        try:
            scaled["segmentation"], pixels, empty = _scale_mask(segmentation, width, height, size)
        except InputError as error:
            raise InputError(f"annotation {annotation['id']}: {error}") from None
        scaled["area"] = float(pixels)
        degenerate = degenerate or empty
    if degenerate:
        scaled |= {"ignore": 1, "ignore_reason": "degenerate"}
    return scaled


def _scale_mask(segmentation: Any, width: int, height: int, size: int) -> tuple[Any, int, bool]:
    """The mask on the canvas, its pixels there, and whether it is empty at its own size."""
    source = from_coco_segmentation(segmentation, height, width)
    empty = area(source) == 0
    if isinstance(segmentation, list):
        factors = (size / width, size / height)
        parts = [
            [value * factors[position % 2] for position, value in enumerate(part)]
            for part in usable_polygons(segmentation)
        ]
        pixels = area(from_coco_segmentation(parts, size, size)) if parts else 0
        if pixels:
            return parts, pixels, empty
    mask = canvas_mask(source, size)
    return to_coco(mask), area(mask), empty
