"""Ground truth at canvas size: what the metrics compare detections with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from instbench.errors import InputError
from instbench.layouts.geometry import boxes_xyxy_to_pixels, boxes_xyxy_to_xywh
from instbench.layouts.rle import area, decode, encode, resize, to_coco
from instbench.layouts.types import Instance, Layout, MaskRLE

__all__ = ["canvas_ground_truth", "canvas_mask"]


def canvas_ground_truth(layouts: Sequence[Layout], canvas_size: int) -> dict[str, Any]:
    """The COCO dict that a perfect generator's detections would match.

    Boxes and masks are squashed to the square canvas, as the images are. Ignored instances stay in,
    marked so that a detection on them counts neither way: crowds with ``iscrowd=1`` (COCO's crowd
    matching), others with ``ignore=1``. Annotations also carry the relative ``point`` and ``scribble``
    that were asked for, the phrase, and ``ignore_reason``.

    Args:
        layouts: Full layouts (not restricted ones, which lack boxes and masks).
        canvas_size: Side of the canvas in pixels.

    Returns:
        ``{"images", "annotations", "categories"}``; boxes are x, y, width, height in pixels, areas are
        those of the masks (of the boxes where there is none), in square pixels of the canvas.
        Categories are sorted by id. An instance without a mask has no ``segmentation``.

    Raises:
        InputError: If a box is missing, an image or annotation id occurs twice, or a category id has
            two names.
    """
    if canvas_size < 1:
        raise InputError(f"canvas size must be at least 1 pixel, not {canvas_size}")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    image_ids: set[int] = set()
    annotation_ids: set[int] = set()
    for layout in layouts:
        if layout.image_id in image_ids:
            raise InputError(f"layouts: image id {layout.image_id} occurs twice; ids must be unique")
        image_ids.add(layout.image_id)
        images.append(
            {
                "id": layout.image_id,
                "width": canvas_size,
                "height": canvas_size,
                "file_name": f"{layout.image_key}.png",
            }
        )
        for instance in layout.instances:
            if instance.annotation_id in annotation_ids:
                raise InputError(
                    f"layouts: annotation id {instance.annotation_id} occurs twice; ids must be unique"
                )
            annotation_ids.add(instance.annotation_id)
            if names.setdefault(instance.category_id, instance.category) != instance.category:
                raise InputError(
                    f"layouts: category id {instance.category_id} is both {names[instance.category_id]!r} and "
                    f"{instance.category!r}; use one name per id"
                )
            annotations.append(_annotation(instance, layout, canvas_size))
    categories = [{"id": category_id, "name": names[category_id]} for category_id in sorted(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def canvas_mask(mask: MaskRLE, canvas_size: int) -> MaskRLE:
    """A mask at canvas size.

    A mask so thin that no canvas pixel centre falls on it keeps one pixel, the one below its centroid's
    nearest mask pixel: it is asked for, so it must not vanish from the ground truth.

    Args:
        mask: Mask at source size.
        canvas_size: Side of the canvas in pixels.

    Returns:
        The mask at canvas_size x canvas_size; empty only if the source mask is empty.
    """
    resized = resize(mask, canvas_size, canvas_size)
    if area(resized) > 0 or area(mask) == 0:
        return resized
    rows, columns = np.nonzero(decode(mask))
    nearest = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    single = np.zeros((canvas_size, canvas_size), dtype=np.bool_)
    row = int((rows[nearest] + 0.5) * canvas_size / mask.height)
    column = int((columns[nearest] + 0.5) * canvas_size / mask.width)
    single[row, column] = True
    return encode(single)


def _annotation(instance: Instance, layout: Layout, canvas_size: int) -> dict[str, Any]:
    if instance.box_xyxy is None:
        raise InputError(
            f"layout {layout.image_key}: annotation {instance.annotation_id} has no box; "
            "the ground truth needs the full layout, not a restricted one"
        )
    box = boxes_xyxy_to_xywh(boxes_xyxy_to_pixels(instance.box_xyxy, canvas_size, canvas_size))
    annotation: dict[str, Any] = {
        "id": instance.annotation_id,
        "image_id": layout.image_id,
        "category_id": instance.category_id,
        "bbox": [float(value) for value in box],
        "area": float(box[2] * box[3]),
        "iscrowd": int(instance.is_crowd),
        "ignore": int(instance.is_ignored),
        "phrase": instance.phrase,
    }
    if instance.ignore_reason is not None:
        annotation["ignore_reason"] = instance.ignore_reason
    if instance.point_xy is not None:
        annotation["point"] = list(instance.point_xy)
    if instance.scribble_xy is not None:
        annotation["scribble"] = [list(point) for point in instance.scribble_xy]
    if instance.mask is not None:
        mask = canvas_mask(instance.mask, canvas_size)
        annotation["segmentation"] = to_coco(mask)
        annotation["area"] = float(area(mask))
    return annotation
