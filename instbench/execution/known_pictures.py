"""Photographs whose content is known: the public-domain pictures that come with scikit-image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from instbench.errors import InputError

__all__ = ["OBJECTS", "TEXTS", "KnownObject", "photograph"]


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An object in a photograph.

    Attributes:
        category: Its COCO category.
        box_xyxy: Around it, in pixels; drawn by hand, so good for overlaps of a half.
    """

    category: str
    box_xyxy: tuple[int, int, int, int]


OBJECTS: Mapping[str, KnownObject] = {
    "astronaut.png": KnownObject("person", (20, 15, 400, 512)),
    "chelsea.png": KnownObject("cat", (0, 0, 420, 300)),
    "coffee.png": KnownObject("cup", (170, 15, 415, 305)),
    "motorcycle_right.png": KnownObject("motorcycle", (48, 60, 628, 450)),
}
"""The one large object of each photograph."""

TEXTS: Mapping[str, str] = {
    "page.png": "a page of text about segmentation",
    "chelsea.png": "a facial photo of a tabby cat",
    "astronaut.png": "a portrait of an astronaut with the American flag",
    "rocket.jpg": "a rocket standing on a launchpad",
    "motorcycle_right.png": "a red motorcycle standing in a garage",
    "camera.png": "a person looking at a camera on a tripod",
    "horse.png": "a black-and-white silhouette of a horse",
    "coffee.png": "a cup of coffee on a saucer",
}
"""Descriptions as in the introduction to CLIP by its makers, where each picture is nearest to its own."""


def photograph(name: str) -> Image.Image:
    """Reads a picture of scikit-image.

    Args:
        name: File name, a key of `OBJECTS` or `TEXTS`.

    Raises:
        InputError: This version of scikit-image does not bring it.
    """
    import skimage.data

    path = Path(skimage.data.__file__).parent / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; install scikit-image again, it brings this picture")
    with Image.open(path, formats=["PNG", "JPEG"]) as stored:
        return stored.convert("RGB")
