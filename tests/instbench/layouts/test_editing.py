from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from instbench.errors import InputError
from instbench.layouts.editing import EditedLayout, apply_edits, frame, parse_edit
from instbench.layouts.rle import decode, encode
from instbench.layouts.types import Condition, Instance, Layout

ALL = frozenset(Condition)


def rectangle(x0: int, y0: int, x1: int, y1: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def full(number: int = 0) -> Instance:
    """An instance with every format: the box 8..16 by 4..12 of 40 pixels."""
    return Instance(
        phrase=f"thing {number}",
        category="thing",
        category_id=3,
        annotation_id=number + 1,
        box_xyxy=(0.2, 0.1, 0.4, 0.3),
        mask=encode(rectangle(8, 4, 16, 12)),
        point_xy=(0.3, 0.2),
        scribble_xy=((0.25, 0.15), (0.35, 0.25)),
        mask_points_xy=((0.2, 0.1), (0.4, 0.3)),
        color="red",
        area=64.0,
    )


def layout(*instances: Instance) -> Layout:
    return Layout("layout", "handwritten", 0, "c", 40, 40, instances)


def edit(start: Layout, *texts: str, formats: frozenset[Condition] = ALL) -> EditedLayout:
    return apply_edits(start, [parse_edit(text) for text in texts], formats)


def test_all_formats_move_together():
    moved = edit(layout(full()), "move 0 0.5,0.25").after.instances[0]
    assert moved.box_xyxy == pytest.approx((0.7, 0.35, 0.9, 0.55))
    assert moved.point_xy == pytest.approx((0.8, 0.45))
    assert np.allclose(moved.scribble_xy, ((0.75, 0.4), (0.85, 0.5)))
    assert np.allclose(moved.mask_points_xy, ((0.7, 0.35), (0.9, 0.55)))
    assert moved.mask is not None
    assert (decode(moved.mask) == rectangle(28, 14, 36, 22)).all()
    assert (moved.phrase, moved.color, moved.area) == ("thing 0", "red", 64.0)


def test_all_formats_are_resized_about_the_centre():
    large = edit(layout(full()), "resize 0 0.4,0.2").after.instances[0]
    assert large.box_xyxy == pytest.approx((0.1, 0.1, 0.5, 0.3))
    assert large.point_xy == pytest.approx((0.3, 0.2))
    assert large.mask is not None
    assert (decode(large.mask) == rectangle(4, 4, 20, 12)).all()
    assert large.area == pytest.approx(128.0)


def test_a_size_that_does_not_fit_about_the_centre_is_pushed_inside():
    large = edit(layout(full()), "resize 0 0.8,1.0").after.instances[0]
    assert large.box_xyxy == pytest.approx((0.0, 0.0, 0.8, 1.0))


def test_edits_see_the_result_of_those_before_and_instances_are_tracked():
    edited = edit(
        layout(full(0), full(1), full(2)),
        "remove 0",
        "move 0 0.1,0.0",
        'add "a red circle" 0.1, 0.1, 0.4, 0.4',
        'replace 1 "a blue square"',
        "remove 2",
        'add "a dog" 0.5,0.5,0.6,0.6',
        'caption "two things"',
    )
    assert [one.phrase for one in edited.after.instances] == ["thing 1", "a blue square", "a dog"]
    assert edited.after.instances[1].color is None
    assert [(one.before, one.after, one.verbs) for one in edited.tracks] == [
        (0, None, ("removed",)),
        (1, 0, ("moved",)),
        (2, 1, ("replaced",)),
        (None, 2, ("added",)),
    ]
    assert edited.after.caption == "two things"
    assert edited.before.caption == "c"
    assert len({one.annotation_id for one in edited.after.instances}) == 3


def test_an_added_instance_has_the_formats_that_are_shown():
    plain = edit(layout(), 'add "a" 0.1,0.1,0.4,0.5', formats=frozenset({Condition.BOX})).after.instances[0]
    assert (plain.mask, plain.scribble_xy) == (None, None)
    assert plain.point_xy == pytest.approx((0.25, 0.3))
    every = edit(layout(), 'add "a" 0.1,0.1,0.4,0.5').after.instances[0]
    assert every.mask is not None
    assert (decode(every.mask) == rectangle(4, 4, 16, 20)).all()
    assert len(every.scribble_xy or ()) == 20
    assert every.mask_points_xy is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown verb"),
        ("turn 0 1", "unknown verb 'turn'"),
        ("move", "needs the number"),
        ("move -1 0,0", "needs the number"),
        ("move 0 0.1", "takes 2 numbers"),
        ("move 0 nan,0", "takes 2 numbers"),
        ("move 0 1e999,0", "takes 2 numbers"),
        ("move 0 0.7,0", "it would leave the canvas; DX can be -0.200 to 0.600"),
        ("move 7 0,0", "there is no instance 7; the layout has 2"),
        ("resize 0 0,0.5", "above 0 and at most 1"),
        ("resize 1 0.5,0.5", "a lone point"),
        ("add a red circle 0,0,1,1", "add takes 4 numbers"),
        ('add "" 0,0,1,1', "needs a phrase"),
        ('add "a" 0.5,0,0.4,1', "the box must lie on the canvas"),
        ('add "a 0,0,1,1', "close the quotes"),
        ("replace 0 a dog", "quote the phrase"),
        ("remove 0 1", "no more words"),
        ("resize 0 0.001,0.001", "its mask would vanish"),
    ],
)
def test_bad_edits_are_one_line_that_names_the_edit(text, message):
    point = Instance("p", "p", 0, 2, None, point_xy=(0.5, 0.5))
    with pytest.raises(InputError, match="--edit") as error:
        edit(layout(full(), point), text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


sides = st.integers(1, 39)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.integers(-39, 39), st.integers(-39, 39))
def test_moving_there_and_back_changes_nothing(x, y, w, h, dx, dy):
    assume(x + w <= 40 and y + h <= 40 and 0 <= x + dx <= 40 - w and 0 <= y + dy <= 40 - h)
    start = Instance(
        "a",
        "a",
        0,
        1,
        (x / 40, y / 40, (x + w) / 40, (y + h) / 40),
        mask=encode(rectangle(x, y, x + w, y + h)),
        point_xy=((x + w / 2) / 40, (y + h / 2) / 40),
    )
    there = edit(layout(start), f"move 0 {dx / 40!r},{dy / 40!r}")
    moved = there.after.instances[0]
    assert moved.mask is not None
    assert (decode(moved.mask) == rectangle(x + dx, y + dy, x + dx + w, y + dy + h)).all()
    back = edit(there.after, f"move 0 {-dx / 40!r},{-dy / 40!r}").after.instances[0]
    assert back.mask == start.mask
    assert back.box_xyxy == pytest.approx(start.box_xyxy, abs=1e-9)
    assert back.point_xy == pytest.approx(start.point_xy, abs=1e-9)


shares = st.floats(0.05, 1.0)


@given(shares, shares)
def test_a_resized_instance_has_the_size_and_stays_on_the_canvas(width, height):
    large = edit(layout(full()), f"resize 0 {width!r},{height!r}").after.instances[0]
    box = frame(large)
    assert box is not None
    assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((width, height), abs=1e-9)
    assert large.mask is not None
    inside = decode(large.mask)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert np.abs(np.array(edges) / 40 - box).max() <= 0.5 / 40 + 1e-6
    for x, y in (*(large.scribble_xy or ()), *(large.mask_points_xy or ())):
        assert box[0] - 1e-9 <= x <= box[2] + 1e-9
        assert box[1] - 1e-9 <= y <= box[3] + 1e-9
