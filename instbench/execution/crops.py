"""Crops of objects, and what they are compared with.

Strict edition: the detection that answers the instance, with a margin. Paper edition: the asked box, whether
anything is drawn there or not, without a margin.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.execution.matching import Match
from instbench.layouts.from_coco import MAX_INSTANCES
from instbench.layouts.geometry import boxes_xyxy_to_pixels
from instbench.layouts.prompts import COLORS, TEXTURES
from instbench.layouts.types import Instance, Layout

__all__ = [
    "ATTRIBUTES",
    "CROP_PADDING",
    "PUBLISHED_CROP",
    "Crop",
    "asked_crops",
    "asked_attribute",
    "attribute_labels",
    "attribute_prompts",
    "crop_box",
    "found_crops",
]

ATTRIBUTES = ("color", "texture")
CROP_PADDING = 0.08
"""Margin on each side of a crop, as a share of the box's width and height."""
PUBLISHED_CROP = "the asked box of the first 30 annotations, rounded to pixels"
"""The rule of `asked_crops`, for identities."""

Crop = tuple[Instance, Image.Image]


def attribute_labels(attribute: str, texts_in_use: frozenset[str]) -> tuple[str, ...]:
    """Returns the words that an attribute is chosen from.

    Args:
        attribute: "color" or "texture".
        texts_in_use: Words that the layouts ask for; they tell which texture list applies.

    Returns:
        The closed list of words.

    Raises:
        InputError: If no list has all the words.
    """
    from instbench.datasets.shapes import TEXTURES as SHAPES_TEXTURES

    lists = [COLORS] if attribute == "color" else [SHAPES_TEXTURES, TEXTURES]
    for words in lists:
        if texts_in_use <= set(words):
            return words
    unknown = sorted(texts_in_use - set().union(*lists)) or sorted(texts_in_use)
    raise InputError(f"{attribute} {unknown[0]!r} belongs to no known list; known: {', '.join(lists[0])}")


def attribute_prompts(labels: tuple[str, ...]) -> list[str]:
    """Returns the texts that a crop is compared with, one per label."""
    return [f"a {label} object" for label in labels]


def asked_attribute(instance: Instance, attribute: str) -> str | None:
    """Returns the colour or texture that an instance is asked for."""
    return instance.color if attribute == "color" else instance.texture


def crop_box(image: Image.Image, box_xyxy: tuple[float, float, float, float]) -> Image.Image | None:
    """Cuts a box out of an image, with a margin, clipped to the image.

    Args:
        image: The picture.
        box_xyxy: Box in pixels of the image.

    Returns:
        The crop, or None if less than one pixel is left.
    """
    x0, y0, x1, y1 = box_xyxy
    pad_x, pad_y = (x1 - x0) * CROP_PADDING, (y1 - y0) * CROP_PADDING
    left, top = max(0, int(x0 - pad_x)), max(0, int(y0 - pad_y))
    right, bottom = min(image.width, -int(-(x1 + pad_x) // 1)), min(image.height, -int(-(y1 + pad_y) // 1))
    if right - left < 1 or bottom - top < 1:
        return None
    return image.crop((left, top, right, bottom))


def found_crops(
    layout: Layout,
    image: Image.Image,
    detections: Detections,
    matches: Sequence[Match | None],
    attribute: str,
) -> list[Crop]:
    """Crops of the found objects that are asked for an attribute (strict edition).

    Args:
        layout: Full layout.
        image: Its image.
        detections: What a detector saw in it.
        matches: One entry per requested instance.
        attribute: "color" or "texture".

    Returns:
        Instances with their crops; one without a match, or with an empty crop, is left out.
    """
    crops = []
    for instance, match in zip(layout.requested, matches, strict=True):
        if match is None or asked_attribute(instance, attribute) is None:
            continue
        x0, y0, x1, y1 = (float(value) for value in detections.boxes_xyxy[match.detection])
        crop = crop_box(image, (x0, y0, x1, y1))
        if crop is not None:
            crops.append((instance, crop))
    return crops


def asked_crops(layout: Layout, image: Image.Image, attribute: str) -> list[Crop]:
    """Crops of the asked boxes, as the published script cuts them (paper edition).

    The first 30 annotations of an image are cut, crowds included. Corners are rounded to whole pixels, half to
    even; what lies outside of the image is black.

    Args:
        layout: Full layout of the paper edition.
        image: Its image.
        attribute: "color" or "texture".

    Returns:
        Instances with their crops; an empty crop is left out (the published script skips it with a message).
    """
    crops = []
    for instance in layout.instances[:MAX_INSTANCES]:
        if instance.box_xyxy is None or asked_attribute(instance, attribute) is None:
            continue
        corners = boxes_xyxy_to_pixels(instance.box_xyxy, image.width, image.height)
        left, top, right, bottom = (round(value) for value in corners.tolist())
        if right > left and bottom > top:
            crops.append((instance, image.crop((left, top, right, bottom))))
    return crops
