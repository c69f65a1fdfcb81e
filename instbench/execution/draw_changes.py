"""What edits changed in a picture: differences of pixels, and a sheet that shows them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instbench.layouts.drawing import Mark, draw_marks, instance_color, side_by_side
from instbench.layouts.editing import EditedLayout, Frame, Track, frame
from instbench.layouts.types import Instance
from instbench.runs.images import UNREADABLE

__all__ = ["Changes", "InstanceChange", "against_picture", "changes_sheet", "measure_changes"]

_POINT_REACH = 0.08  # half the side of the square around a lone point, as a share of the canvas


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """One instance, before and after.

    Attributes:
        before: Its position before, None if it was added.
        after: Its position afterwards, None if it was removed.
        phrase: What was asked for last.
        verbs: What was done; empty if nothing.
        difference: Mean absolute difference of the pictures inside its boxes (before and after together), in
            levels of 0 to 255.
    """

    before: int | None
    after: int | None
    phrase: str
    verbs: tuple[str, ...]
    difference: float | None


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences of two pictures, mean absolute levels of 0 to 255; means over all pairs.

    Attributes:
        instances: Per instance.
        inside: Inside the boxes of changed instances, None if none changed.
        outside: Everywhere else, None if there is nothing else.
        whole: The whole picture.
    """

    instances: tuple[InstanceChange, ...]
    inside: float | None
    outside: float | None
    whole: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measure_changes(
    before: Sequence[Image.Image], after: Sequence[Image.Image], edited: EditedLayout
) -> Changes:
    """Compares pictures of the same noise before and after edits.

    Args:
        before: Pictures before.
        after: Pictures afterwards, in the same order and size.
        edited: The layouts.

    Returns:
        The differences.
    """
    pairs = [_difference(first, second) for first, second in zip(before, after, strict=True)]
    difference: NDArray[np.float64] = np.mean(pairs, axis=0)
    side = difference.shape[0]
    changed = np.zeros((side, side), dtype=bool)
    instances = []
    for track in edited.tracks:
        region = np.zeros((side, side), dtype=bool)
        for rectangle in _rectangles(track, edited):
            x0, y0, x1, y1 = (value * side for value in rectangle)
            region[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
        if track.verbs:
            changed |= region
        phrase = _last(track, edited).phrase
        instances.append(
            InstanceChange(track.before, track.after, phrase, track.verbs, _mean(difference, region))
        )
    return Changes(
        tuple(instances), _mean(difference, changed), _mean(difference, ~changed), float(difference.mean())
    )


def changes_sheet(before: Image.Image, after: Image.Image, edited: EditedLayout) -> Image.Image:
    """Puts side by side: before, after, and where the pictures differ, with the changed instances marked.

    Places before are dashed, places afterwards solid. The third panel is the mean absolute difference of the
    channels, white where it is largest.
    """
    old: list[Mark] = []
    new: list[Mark] = []
    for number, track in enumerate(one for one in edited.tracks if one.verbs):
        color = instance_color(number)
        text = ", ".join(dict.fromkeys(track.verbs))
        if track.before is not None:
            instance = edited.before.instances[track.before]
            old.append(Mark(_place(instance), f"{track.before} {instance.phrase}", color, dashed=True))
        if track.after is not None:
            new.append(Mark(_place(edited.after.instances[track.after]), f"{track.after} {text}", color))
    difference = _difference(before, after)
    scaled = difference * (255.0 / max(float(difference.max()), 1.0))
    heat = Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
    bare = [Mark(mark.box, "", mark.color, mark.dashed) for mark in (*old, *new)]
    panels = (
        ("before", draw_marks(before, old)),
        ("after", draw_marks(after, new)),
        ("difference", draw_marks(heat, bare)),
    )
    return side_by_side(panels, "; ".join(edit.source for edit in edited.edits))


def against_picture(image: Image.Image, png: bytes, place: str) -> str:
    """Says in a few words how a picture differs from a PNG file.

    Args:
        image: The picture.
        png: The file; one that is no whole picture is named as such.
        place: Where it is, for the answer.

    Returns:
        ``"same pixels as ..."``, or by how many levels of 255 and where it differs.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as file:
            if file.size != image.size:
                return f"{place}: is of another size, {file.width}x{file.height}"
            known = np.asarray(file.convert("RGB"), dtype=np.int64)
    except UNREADABLE:
        return f"{place}: cannot be read, not compared"
    difference = np.abs(np.asarray(image.convert("RGB"), dtype=np.int64) - known)
    if not difference.any():
        return f"same pixels as {place}"
    share = float(difference.any(axis=2).mean())
    return f"differs from {place} by at most {difference.max()} of 255, in {share:.2%} of the pixels"


def _difference(first: Image.Image, second: Image.Image) -> NDArray[np.float64]:
    a, b = (np.asarray(one.convert("RGB"), dtype=np.float64) for one in (first, second))
    difference: NDArray[np.float64] = np.abs(a - b).mean(axis=2)
    return difference


def _mean(difference: NDArray[np.float64], region: NDArray[np.bool_]) -> float | None:
    return round(float(difference[region].mean()), 4) if region.any() else None


def _rectangles(track: Track, edited: EditedLayout) -> list[Frame]:
    places = []
    if track.before is not None:
        places.append(_place(edited.before.instances[track.before]))
    if track.after is not None:
        places.append(_place(edited.after.instances[track.after]))
    return places


def _last(track: Track, edited: EditedLayout) -> Instance:
    if track.after is not None:
        return edited.after.instances[track.after]
    return edited.before.instances[track.before or 0]


def _place(instance: Instance) -> Frame:
    """The frame of an instance, or a square around what has no size."""
    around = frame(instance)
    if around is not None:
        return around
    points = instance.scribble_xy or (instance.point_xy or (0.5, 0.5),)
    xs, ys = zip(*points, strict=True)
    return (
        max(min(xs) - _POINT_REACH, 0.0),
        max(min(ys) - _POINT_REACH, 0.0),
        min(max(xs) + _POINT_REACH, 1.0),
        min(max(ys) + _POINT_REACH, 1.0),
    )
