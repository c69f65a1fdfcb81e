"""The specification of the Shapes worlds: what may appear in a scene, and how large.

Two worlds are defined. ``shapes`` is the standard one, in which every object spans at least four
latent cells of an f = 8 autoencoder (32 px), so that small models can be trained on a laptop.
``shapes-hard`` has smaller objects, more of them, more overlap and more categories.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from instbench.errors import InputError

__all__ = [
    "BACKGROUND_KINDS",
    "BACKGROUND_TINTS",
    "COLORS",
    "SPLITS",
    "TEXTURES",
    "WORLDS",
    "Split",
    "WorldSpec",
]
__all__ += ["get_world"]

Split = Literal["train", "val", "test"]

SPLITS: dict[str, int] = {"train": 24_000, "val": 256, "test": 256}
"""Default number of scenes of each split."""

COLORS: dict[str, tuple[int, int, int]] = {
    "black": (22, 22, 24),
    "white": (246, 246, 244),
    "red": (222, 36, 36),
    "green": (44, 160, 56),
    "yellow": (244, 216, 40),
    "blue": (36, 76, 222),
    "pink": (250, 140, 190),
    "purple": (132, 44, 172),
}
"""The eight colour words of the InstanceDiffusion attribute protocol, as sRGB."""

TEXTURES: tuple[str, ...] = ("plain", "striped", "checkered", "dotted")

BACKGROUND_KINDS: tuple[str, ...] = ("plain", "gradient", "cloudy", "lined")

BACKGROUND_TINTS: dict[str, tuple[int, int, int]] = {
    "grey": (128, 128, 128),
    "tan": (158, 138, 108),
    "slate": (104, 120, 138),
    "sage": (122, 142, 116),
}
"""Muted mid tones, apart from all eight object colours."""


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """One procedural world.

    Attributes:
        name: Name used on the command line.
        world_id: Part of every seed; never reuse or change it.
        shapes: Category names; category id = position + 1.
        canvas_size: Width and height of a scene in pixels.
        max_objects: Largest number of objects of a scene (1 is the smallest).
        size_range: Smallest and largest side of an object's outline in pixels.
        crowded_size_max: Largest side in scenes of three or more objects.
        min_visible: Smallest share of an object's outline that stays visible.
        aspect_max: Largest ratio of the two sides.
        texture_period: Smallest and largest texture period in pixels.
        texture_anchored: Whether textures share the canvas grid (True) or have a random phase.
    """

    name: str
    world_id: int
    shapes: tuple[str, ...]
    canvas_size: int = 128
    max_objects: int = 4
    size_range: tuple[int, int] = (36, 80)
    crowded_size_max: int = 58
    min_visible: float = 0.9
    aspect_max: float = 1.2
    texture_period: tuple[int, int] = (8, 8)
    texture_anchored: bool = True

    @property
    def categories(self) -> list[dict[str, object]]:
        """COCO ``categories`` entries."""
        return [
            {"id": position + 1, "name": name, "supercategory": "shape"}
            for position, name in enumerate(self.shapes)
        ]


WORLDS: dict[str, WorldSpec] = {
    world.name: world
    for world in (
        WorldSpec("shapes", 1, ("circle", "square", "triangle", "cross", "heart", "star")),
        WorldSpec(
            "shapes-hard",
            2,
            ("circle", "square", "triangle", "cross", "heart", "star", "diamond", "moon", "hexagon", "arrow"),
            max_objects=6,
            size_range=(18, 70),
            crowded_size_max=48,
            min_visible=0.6,
            aspect_max=1.4,
            texture_period=(6, 10),
            texture_anchored=False,
        ),
    )
}


def get_world(name: str) -> WorldSpec:
    """Looks a world up by name.

    Raises:
        InputError: If there is no such world.
    """
    if name not in WORLDS:
        guess = difflib.get_close_matches(name, WORLDS, n=1)
        hint = f"; did you mean {guess[0]!r}?" if guess else ""
        raise InputError(f"unknown Shapes world {name!r}{hint} (worlds: {', '.join(WORLDS)})")
    return WORLDS[name]
