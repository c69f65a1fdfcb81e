"""Words for scenes: phrases of objects and captions of images."""

from __future__ import annotations

from collections.abc import Sequence

from instbench.datasets.shapes.scenes import Background, SceneObject

__all__ = ["object_phrases", "scene_captions"]


def object_phrases(item: SceneObject) -> list[str]:
    """Phrases from full to bare: colour + texture + shape, colour + shape, texture + shape, shape."""
    return [
        f"{item.color} {item.texture} {item.shape}",
        f"{item.color} {item.shape}",
        f"{item.texture} {item.shape}",
        item.shape,
    ]


def _join(phrases: Sequence[str]) -> str:
    parts = [f"a {phrase}" for phrase in phrases]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def scene_captions(objects: Sequence[SceneObject], background: Background) -> list[str]:
    """One caption for each level of detail of `object_phrases`, in the same order."""
    place = f" on a {background.kind} {background.tint} background"
    phrases = [object_phrases(item) for item in objects]
    return [_join([levels[level] for levels in phrases]) + place for level in range(4)]
