"""What the gallery shows of every image: asked once, found once per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from instbench.evaluators.base import Detections
from instbench.layouts import restrict
from instbench.layouts.geometry import boxes_xyxy_to_relative
from instbench.layouts.types import Condition, Instance, Layout
from instbench.reports.html.outlines import SCALE, mask_outlines
from instbench.reports.html.reading import RunData

__all__ = ["Asked", "Entry", "Found", "Outcome", "View", "make_entries", "to_json"]

_MIN_SCORE = 0.3
_QUALITY = ("hit", "share", "iou_mask", "iou_box")
_VALUES = ("iou_box", "iou_mask", "share", "score", "similarity")


@dataclass(frozen=True, slots=True)
class Asked:
    """A requested instance; locations in drawing units, as far as the generator was shown them.

    Attributes:
        phrase: Its words.
        category: Its category.
        id: Annotation id.
        box: x0, y0, x1, y1.
        mask: Outlines.
        point: x, y.
        scribble: x0, y0, x1, y1, ...
        color: Colour that was asked for.
        texture: Texture that was asked for.
    """

    phrase: str
    category: str
    id: int
    box: list[int] | None = None
    mask: list[list[int]] | None = None
    point: list[int] | None = None
    scribble: list[int] | None = None
    color: str | None = None
    texture: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A detection, in drawing units.

    Attributes:
        category: What the detector calls it.
        score: Its score.
        box: x0, y0, x1, y1.
        mask: Outlines.
    """

    category: str
    score: float
    box: list[int]
    mask: list[list[int]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a requested instance in one run; see the columns of ``instances.parquet``."""

    failure: str | None = None
    not_scored: str | None = None
    found: bool | None = None
    hit: bool | None = None
    color_seen: str | None = None
    texture_seen: str | None = None
    iou_box: float | None = None
    iou_mask: float | None = None
    share: float | None = None
    score: float | None = None
    similarity: float | None = None
    detection: int | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One image as one run made it.

    Attributes:
        picture: Address of the picture; None where it is missing.
        seed: Seed of the image.
        seconds: Seconds that it took.
        again: Command that makes it again.
        quality: Mean over its instances of overlap or hit, 0 to 1; None where nothing is scored.
        failed: Requested instances that are not correct.
        outcomes: One per requested instance, in order.
        found: Detections to show.
    """

    picture: str | None
    seed: str | None
    seconds: float | None
    again: str
    quality: float | None
    failed: int
    outcomes: list[Outcome] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of the gallery.

    Attributes:
        key: Image key.
        image_id: Id in the source data.
        caption: Global prompt.
        asked: Requested instances.
        views: One per run.
    """

    key: str
    image_id: int
    caption: str
    asked: list[Asked]
    views: list[View]


def to_json(value: Any) -> Any:
    """Dataclasses as JSON objects, without the fields that are None."""
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        pairs = ((one.name, getattr(value, one.name)) for one in fields(value))
        return {name: to_json(item) for name, item in pairs if item is not None}
    return value


def make_entries(
    runs: Sequence[RunData],
    pictures: Sequence[Mapping[str, str]],
    commands: Sequence[Mapping[str, str]],
) -> list[Entry]:
    """Puts together the gallery of one or more runs on the same layouts.

    Args:
        runs: The runs.
        pictures: Addresses of the pictures of each run, by image key.
        commands: Commands that make each image again, of each run.

    Returns:
        One entry per layout, in the order of the first run.
    """
    shown = frozenset(Condition(name) for name in runs[0].run.benchmark.get("conditions", ()))
    # The ceiling is shown nothing; its report shows where the objects are.
    drawn = shown or frozenset({Condition.BOX})
    masks = drawn != {Condition.BOX}
    entries = []
    for layout in runs[0].layouts:
        key = layout.image_key
        asked = [_asked(one) for one in restrict(layout, drawn).instances]
        views = [
            _view(run, layout, run_pictures.get(key), run_commands[key], masks=masks)
            for run, run_pictures, run_commands in zip(runs, pictures, commands, strict=True)
        ]
        entries.append(Entry(key, layout.image_id, layout.caption, asked, views))
    return entries


def _units(values: Any) -> list[int]:
    """Relative coordinates in drawing units, flat; far outside the canvas they are cut off."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    units: list[int] = np.rint(np.clip(flat, -1.0, 2.0) * SCALE).astype(int).tolist()
    return units


def _asked(one: Instance) -> Asked:
    return Asked(
        phrase=one.phrase,
        category=one.category,
        id=one.annotation_id,
        box=None if one.box_xyxy is None else _units(one.box_xyxy),
        mask=None if one.mask is None else mask_outlines(one.mask),
        point=None if one.point_xy is None else _units(one.point_xy),
        scribble=None if one.scribble_xy is None else _units(one.scribble_xy),
        color=one.color,
        texture=one.texture,
    )


def _view(run: RunData, layout: Layout, picture: str | None, again: str, *, masks: bool) -> View:
    key = layout.image_key
    rows = [run.rows.get((key, one.annotation_id), {}) for one in layout.requested]
    detections = run.detections.get(key)
    shown = [] if detections is None else _shown(detections, rows)
    outcomes = [_outcome(row, detections, shown) for row in rows]
    side = float(run.run.identity["canvas_size"])
    qualities = [value for row in rows if (value := _quality(row)) is not None]
    line = run.log.get(key, {})
    # What the generator tells of the image; the line's own is the wait, which falls on the first of a batch.
    seed, seconds = line.get("seed"), (line.get("info") or {}).get("seconds", line.get("seconds"))
    return View(
        picture=picture,
        seed=None if seed is None else str(seed),  # beyond the whole numbers that a script can hold
        seconds=round(seconds, 3) if isinstance(seconds, int | float) else None,
        again=again,
        quality=round(float(np.mean(qualities)), 4) if qualities else None,
        failed=sum(one.failure not in (None, "correct") for one in outcomes),
        outcomes=outcomes,
        found=[] if detections is None else [_found(detections, index, side, masks=masks) for index in shown],
    )


def _quality(row: Mapping[str, Any]) -> float | None:
    values = [row.get(name) for name in _QUALITY]
    return next((float(value) for value in values if value is not None), None)


def _shown(detections: Detections, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Detections above the score that is worth drawing, and those that answer an instance."""
    answers = [index for row in rows if (index := _answer(row, detections)) is not None]
    above = np.flatnonzero(np.asarray(detections.scores) >= _MIN_SCORE).tolist()
    return sorted({*above, *answers})


def _answer(row: Mapping[str, Any], detections: Detections) -> int | None:
    """The detection that answers an instance, told by its score (the rows do not hold its number)."""
    if not row.get("found") or row.get("score") is None:
        return None
    same = np.flatnonzero(np.asarray(detections.scores) == np.float32(row["score"]))
    return int(same[0]) if len(same) else None


def _outcome(row: Mapping[str, Any], detections: Detections | None, shown: Sequence[int]) -> Outcome:
    answer = None if detections is None else _answer(row, detections)
    numbers = {
        name: None if row.get(name) is None else round(float(row[name]), 3)
        for name in _VALUES
        if row.get(name) is None or np.isfinite(row[name])
    }
    return Outcome(
        failure=row.get("failure"),
        not_scored=row.get("not_scored"),
        found=row.get("found"),
        hit=row.get("hit"),
        color_seen=row.get("color_seen"),
        texture_seen=row.get("texture_seen"),
        detection=None if answer is None else list(shown).index(answer),
        **numbers,
    )


def _found(detections: Detections, index: int, side: float, *, masks: bool) -> Found:
    return Found(
        category=detections.categories[index],
        score=round(float(detections.scores[index]), 3),
        box=_units(boxes_xyxy_to_relative(detections.boxes_xyxy[index], side, side)),
        mask=mask_outlines(detections.masks[index]) if masks and detections.masks is not None else None,
    )
