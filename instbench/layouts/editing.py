"""Small edits of a layout: move, resize, add, replace and remove instances, or change the caption.

An instance is moved with everything it has: box, point, scribble, mask and the points that stand for it go
through one map x' = s * x + t per axis, so that the formats keep telling the same story.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from instbench.errors import InputError
from instbench.layouts.handwritten import LIMITS, check_drawable
from instbench.layouts.locations import strict_mask_points, strict_scribble
from instbench.layouts.rle import area, decode, encode
from instbench.layouts.types import Condition, Instance, Layout, MaskRLE, PointXY

__all__ = ["Edit", "EditedLayout", "Track", "apply_edits", "frame", "parse_edit"]

_FORMS = {
    "move": ("index", 2),
    "resize": ("index", 2),
    "add": ("text", 4),
    "replace": ("index text", 0),
    "remove": ("index", 0),
    "caption": ("text", 0),
}
_ROUNDING = 1e-9

Frame = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit.

    Attributes:
        verb: First word.
        index: Instance, or None where the verb has none.
        text: Phrase or caption, or None.
        numbers: Shares of the canvas.
        source: The edit as it was written.
    """

    verb: str
    index: int | None
    text: str | None
    numbers: tuple[float, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Track:
    """What became of one instance.

    Attributes:
        before: Its position before, None if it was added.
        after: Its position afterwards, None if it was removed.
        verbs: What was done to it, in order; empty if nothing.
    """

    before: int | None
    after: int | None
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditedLayout:
    """A layout before and after edits.

    Attributes:
        before: The layout before.
        after: The layout afterwards.
        tracks: One entry per instance of either, those of `before` first.
        edits: The edits.
    """

    before: Layout
    after: Layout
    tracks: tuple[Track, ...]
    edits: tuple[Edit, ...]


@dataclass(slots=True)
class _Item:
    instance: Instance
    before: int | None
    verbs: tuple[str, ...] = ()


def parse_edit(text: str) -> Edit:
    """Reads one edit; `instbench draw --help` has the grammar.

    Raises:
        InputError: If it does not follow the grammar; says what is missing.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--edit {text[:80]!r}: {str(error).lower()}; close the quotes") from None
    verb = words.pop(0) if words else ""
    if verb not in _FORMS:
        raise InputError(f"--edit {text[:80]!r}: unknown verb {verb[:20]!r}; known: {', '.join(_FORMS)}")
    form, count = _FORMS[verb]
    index: int | None = None
    phrase: str | None = None
    if "index" in form:
        word = words.pop(0) if words else ""
        if not (word.isascii() and word.isdigit() and len(word) < 6):
            raise InputError(f"--edit {text[:80]!r}: {verb} needs the number of an instance first")
        index = int(word)
    if "text" in form:
        phrase = words.pop(0) if words else ""
        if (verb != "caption" and not phrase.strip()) or len(phrase) > LIMITS.text:
            raise InputError(f"--edit {text[:80]!r}: {verb} needs a phrase in quotes")
    numbers = _numbers(words)
    if numbers is None or len(numbers) != count:
        what = (
            f"{count} numbers from -1 to 1 with commas between"
            if count
            else "no more words; quote the phrase"
        )
        raise InputError(f"--edit {text[:80]!r}: {verb} takes {what}")
    return Edit(verb, index, phrase, numbers, text)


def apply_edits(layout: Layout, edits: Iterable[Edit], formats: Iterable[Condition]) -> EditedLayout:
    """Applies edits one after the other.

    Args:
        layout: The layout; all its instances count.
        edits: The edits.
        formats: Formats that the model is shown: an added instance gets a mask (its whole box) and a scribble
            only where they are among them; box and point it always has.

    Returns:
        Both layouts and what became of each instance.

    Raises:
        InputError: If an instance does not exist, would leave the canvas or vanish; names the edit.
    """
    edits, formats = tuple(edits), frozenset(formats)
    items = [_Item(instance, number) for number, instance in enumerate(layout.instances)]
    removed: list[_Item] = []
    caption = layout.caption
    for edit in edits:
        try:
            if edit.verb == "caption":
                caption = str(edit.text)
            elif edit.verb == "add":
                items.append(_Item(_added(layout, items, removed, edit, formats), None, ("added",)))
            else:
                _change(items, removed, edit)
        except InputError as error:
            raise InputError(f"--edit {edit.source[:80]!r}: {error}") from None
    after = check_drawable(replace(layout, caption=caption, instances=tuple(one.instance for one in items)))
    tracks = [Track(one.before, position, one.verbs) for position, one in enumerate(items)]
    tracks += [Track(one.before, None, one.verbs) for one in removed if one.before is not None]
    last = len(layout.instances)
    tracks.sort(key=lambda track: (last if track.before is None else track.before, track.after or 0))
    return EditedLayout(layout, after, tuple(tracks), edits)


def frame(instance: Instance) -> Frame | None:
    """The box of an instance, or the smallest one around what it has; None for a lone point."""
    if instance.box_xyxy is not None:
        return instance.box_xyxy
    around = _extent(replace(instance, point_xy=None))
    return around if around is not None and around[2] > around[0] and around[3] > around[1] else None


def _change(items: list[_Item], removed: list[_Item], edit: Edit) -> None:
    index = -1 if edit.index is None else edit.index
    if not 0 <= index < len(items):
        raise InputError(f"there is no instance {index}; the layout has {len(items)}, counted from 0")
    item = items[index]
    if edit.verb == "remove":
        item.verbs += ("removed",)
        removed.append(items.pop(index))
        return
    if edit.verb == "replace":
        text = str(edit.text)
        item.instance = replace(item.instance, phrase=text, category=text, color=None, texture=None)
        item.verbs += ("replaced",)
        return
    mover, verb = (_moved, "moved") if edit.verb == "move" else (_resized, "resized")
    item.instance = mover(item.instance, edit.numbers[0], edit.numbers[1])
    item.verbs += (verb,)


def _moved(instance: Instance, dx: float, dy: float) -> Instance:
    around = _extent(instance)
    if around is None:
        raise InputError("it has no location")
    x0, y0, x1, y1 = around
    for name, shift, low, high in (("DX", dx, -x0, 1.0 - x1), ("DY", dy, -y0, 1.0 - y1)):
        if not low - _ROUNDING <= shift <= high + _ROUNDING:
            raise InputError(f"it would leave the canvas; {name} can be {low + 0.0:.3f} to {high:.3f}")
    return _mapped(instance, (1.0, 1.0), (dx, dy))


def _resized(instance: Instance, width: float, height: float) -> Instance:
    if not (0.0 < width <= 1.0 and 0.0 < height <= 1.0):
        raise InputError("width and height must be above 0 and at most 1")
    around = frame(instance)
    if around is None:
        raise InputError("a lone point (or a straight scribble) has no size; move it instead")
    x0, y0, x1, y1 = around
    left = min(max((x0 + x1 - width) / 2, 0.0), 1.0 - width)
    top = min(max((y0 + y1 - height) / 2, 0.0), 1.0 - height)
    scale = (width / (x1 - x0), height / (y1 - y0))
    return _mapped(instance, scale, (left - scale[0] * x0, top - scale[1] * y0))


def _mapped(instance: Instance, scale: PointXY, shift: PointXY) -> Instance:
    """All formats through x' = scale * x + shift, cut to the canvas."""

    def point(one: PointXY) -> PointXY:
        x, y = (min(max(s * value + t, 0.0), 1.0) for value, s, t in zip(one, scale, shift, strict=True))
        return x, y

    def points(some: tuple[PointXY, ...] | None) -> tuple[PointXY, ...] | None:
        return None if some is None else tuple(map(point, some))

    box = instance.box_xyxy
    return replace(
        instance,
        box_xyxy=None if box is None else (*point((box[0], box[1])), *point((box[2], box[3]))),
        point_xy=None if instance.point_xy is None else point(instance.point_xy),
        scribble_xy=points(instance.scribble_xy),
        mask_points_xy=points(instance.mask_points_xy),
        mask=None if instance.mask is None else _mapped_mask(instance.mask, scale, shift),
        area=None if instance.area is None else instance.area * scale[0] * scale[1],
    )


def _mapped_mask(mask: MaskRLE, scale: PointXY, shift: PointXY) -> MaskRLE:
    """Each target pixel shows the source pixel below its centre, as in `instbench.layouts.rle.resize`."""
    source = decode(mask)
    kept, taken = [], []
    for side, s, t in ((mask.height, scale[1], shift[1]), (mask.width, scale[0], shift[0])):
        # Rounded before it is cut: a shift by whole pixels must not lose one to the last digit.
        found = np.floor(np.round(((np.arange(side) + 0.5) / side - t) / s * side, 6)).astype(np.int64)
        inside = (found >= 0) & (found < side)
        kept.append(np.flatnonzero(inside))
        taken.append(found[inside])
    target = np.zeros_like(source)
    target[np.ix_(*kept)] = source[np.ix_(*taken)]
    moved = encode(target)
    if area(moved) == 0:
        raise InputError("its mask would vanish; make it larger")
    return moved


def _added(
    layout: Layout,
    items: Sequence[_Item],
    removed: Sequence[_Item],
    edit: Edit,
    formats: frozenset[Condition],
) -> Instance:
    x0, y0, x1, y1 = edit.numbers
    if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
        raise InputError("the box must lie on the canvas: 0 <= X0 < X1 <= 1 and 0 <= Y0 < Y1 <= 1")
    identifier = 1 + max((one.instance.annotation_id for one in [*items, *removed]), default=0)
    text = str(edit.text)
    instance = Instance(
        phrase=text,
        category=text,
        category_id=0,
        annotation_id=identifier,
        box_xyxy=(x0, y0, x1, y1),
        point_xy=((x0 + x1) / 2, (y0 + y1) / 2),
    )
    if not formats & {Condition.MASK, Condition.SCRIBBLE}:
        return instance
    height, width = layout.source_height, layout.source_width
    inside = np.zeros((height, width), dtype=bool)
    inside[
        math.floor(y0 * height) : math.ceil(y1 * height), math.floor(x0 * width) : math.ceil(x1 * width)
    ] = True
    if Condition.SCRIBBLE in formats:
        instance = replace(instance, scribble_xy=strict_scribble(inside, identifier))
    if Condition.MASK in formats:
        points = strict_mask_points(inside, identifier)
        instance = replace(instance, mask=encode(inside), mask_points_xy=points)
    return instance


def _extent(instance: Instance) -> Frame | None:
    """The smallest box around everything that an instance has."""
    points: list[PointXY] = [*(instance.scribble_xy or ()), *(instance.mask_points_xy or ())]
    if instance.point_xy is not None:
        points.append(instance.point_xy)
    if instance.box_xyxy is not None:
        points += [instance.box_xyxy[:2], instance.box_xyxy[2:]]
    if instance.mask is not None and area(instance.mask):
        inside = decode(instance.mask)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        height, width = inside.shape
        points.append((float(columns[0]) / width, float(rows[0]) / height))
        points.append((float(columns[-1] + 1) / width, float(rows[-1] + 1) / height))
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _numbers(words: Sequence[str]) -> tuple[float, ...] | None:
    parts = [part for word in words for part in word.split(",") if part.strip()]
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return numbers if all(-1.0 <= number <= 1.0 for number in numbers) else None
