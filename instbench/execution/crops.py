"""Crops of detected objects, and what they are compared with."""

from __future__ import annotations

from PIL import Image

from instbench.errors import InputError
from instbench.layouts.prompts import COLORS, TEXTURES
from instbench.layouts.types import Instance

__all__ = [
    "ATTRIBUTES",
    "CROP_PADDING",
    "asked_attribute",
    "attribute_labels",
    "attribute_prompts",
    "crop_box",
]

ATTRIBUTES = ("color", "texture")
CROP_PADDING = 0.08
"""Margin on each side of a crop, as a share of the box's width and height."""


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
