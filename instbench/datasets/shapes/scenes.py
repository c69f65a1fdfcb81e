"""Random scenes of a Shapes world: which objects, where, how they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instbench.datasets.shapes.outlines import OUTLINES
from instbench.datasets.shapes.world import BACKGROUND_KINDS, BACKGROUND_TINTS, COLORS, TEXTURES, WorldSpec

__all__ = ["Background", "Scene", "SceneObject", "object_coverage", "sample_scene", "scene_seed"]

_SPLIT_IDS = {"train": 1, "val": 2, "test": 3}
_SUBSAMPLES = 3
_PLACEMENT_TRIES = 40


@dataclass(frozen=True, slots=True)
class Background:
    """Background of a scene.

    Attributes:
        kind: One of `BACKGROUND_KINDS`.
        tint: Name of the tint.
        angle: Direction of the gradient in radians.
        cloud: Low-frequency noise, float64 [5, 5], for the cloudy kind.
    """

    kind: str
    tint: str
    angle: float
    cloud: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object. Coordinates are pixels of the canvas, x to the right, y down.

    Attributes:
        shape: Category name.
        color: Colour word.
        texture: Texture word.
        x0: Left edge of the outline.
        y0: Top edge of the outline.
        width: Width of the outline.
        height: Height of the outline.
        jitter: Offset of the colour, three sRGB levels.
        period: Texture period in pixels.
        phase: Texture phase (x, y) in pixels.
    """

    shape: str
    color: str
    texture: str
    x0: float
    y0: float
    width: float
    height: float
    jitter: tuple[int, int, int]
    period: int
    phase: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in painting order (later ones cover earlier ones) on a background.

    Attributes:
        objects: The objects.
        background: The background.
        canvas_size: Side of the canvas in pixels.
        coverages: Share of each pixel that the outline covers, one float32 [S, S] per object.
        masks: Visible masks after occlusion, bool [len(objects), S, S].
    """

    objects: tuple[SceneObject, ...]
    background: Background
    canvas_size: int
    coverages: tuple[NDArray[np.float32], ...]
    masks: NDArray[np.bool_]


def scene_seed(world: WorldSpec, split: str, index: int) -> np.random.Generator:
    """The random generator of one scene; independent of every other scene."""
    return np.random.Generator(np.random.PCG64([world.world_id, _SPLIT_IDS[split], index]))


def object_coverage(item: SceneObject, canvas_size: int) -> NDArray[np.float32]:
    """Share of every pixel that the outline of an object covers, float32 [S, S] in [0, 1]."""
    coverage = np.zeros((canvas_size, canvas_size), dtype=np.float32)
    left, top = max(int(item.x0), 0), max(int(item.y0), 0)
    right = min(int(item.x0 + item.width) + 1, canvas_size)
    bottom = min(int(item.y0 + item.height) + 1, canvas_size)
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES
    xs = (np.arange(left, right)[:, None] + steps).reshape(-1)
    ys = (np.arange(top, bottom)[:, None] + steps).reshape(-1)
    x = (2.0 * (xs - item.x0) / item.width - 1.0)[None, :]
    y = (2.0 * (ys - item.y0) / item.height - 1.0)[:, None]
    inside = np.broadcast_to(OUTLINES[item.shape](x, y), (ys.size, xs.size))
    cells = inside.reshape(bottom - top, _SUBSAMPLES, right - left, _SUBSAMPLES)
    coverage[top:bottom, left:right] = cells.mean(axis=(1, 3), dtype=np.float32)
    return coverage


def _sample_object(world: WorldSpec, rng: np.random.Generator, size_max: int) -> SceneObject:
    size = rng.uniform(world.size_range[0] * 4, size_max * 4) / 4.0
    aspect = rng.uniform(1.0, world.aspect_max)
    width, height = (size, size / aspect) if rng.random() < 0.5 else (size / aspect, size)
    width, height = (max(side, float(world.size_range[0])) for side in (width, height))
    # Quarter pixels: exact in floating point, so that no machine rounds an edge differently.
    width, height = round(width * 4) / 4.0, round(height * 4) / 4.0
    x0 = int(rng.integers(0, int((world.canvas_size - width) * 4) + 1)) / 4.0
    y0 = int(rng.integers(0, int((world.canvas_size - height) * 4) + 1)) / 4.0
    period = int(rng.integers(world.texture_period[0], world.texture_period[1] + 1))
    phase = (0, 0) if world.texture_anchored else (int(rng.integers(period)), int(rng.integers(period)))
    return SceneObject(
        shape=str(rng.choice(world.shapes)),
        color=str(rng.choice(list(COLORS))),
        texture=str(rng.choice(TEXTURES)),
        x0=x0,
        y0=y0,
        width=width,
        height=height,
        jitter=(int(rng.integers(-7, 8)), int(rng.integers(-7, 8)), int(rng.integers(-7, 8))),
        period=period,
        phase=phase,
    )


def sample_scene(world: WorldSpec, rng: np.random.Generator) -> Scene:
    """Draws one scene.

    Objects are placed one after another; a place that would hide more than ``1 - min_visible`` of an
    earlier object's outline is drawn again, and after 40 tries the object is left out (the first one
    always fits).
    """
    background = Background(
        kind=str(rng.choice(BACKGROUND_KINDS)),
        tint=str(rng.choice(list(BACKGROUND_TINTS))),
        angle=float(rng.uniform(0.0, 2.0 * np.pi)),
        cloud=rng.uniform(-1.0, 1.0, size=(5, 5)),
    )
    wanted = int(rng.integers(1, world.max_objects + 1))
    size_max = world.size_range[1] if wanted <= 2 else world.crowded_size_max
    objects: list[SceneObject] = []
    coverages: list[NDArray[np.float32]] = []
    masks: list[NDArray[np.bool_]] = []
    outlines: list[int] = []
    for _ in range(wanted):
        for _ in range(_PLACEMENT_TRIES):
            item = _sample_object(world, rng, size_max)
            coverage = object_coverage(item, world.canvas_size)
            outline = coverage >= 0.5
            trimmed = [mask & ~outline for mask in masks]
            if all(
                int(mask.sum()) >= world.min_visible * area
                for mask, area in zip(trimmed, outlines, strict=True)
            ):
                objects.append(item)
                coverages.append(coverage)
                masks = [*trimmed, outline]
                outlines.append(int(outline.sum()))
                break
    return Scene(tuple(objects), background, world.canvas_size, tuple(coverages), np.stack(masks))
