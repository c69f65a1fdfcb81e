from __future__ import annotations

from collections import Counter

from instbench.layouts import Condition, from_coco, restrict
from instbench.layouts.hybrid import assign_formats, format_of
from tests.instbench.layouts.builders import annotation, coco, crowd

ALL = tuple(Condition)


def test_the_format_depends_on_benchmark_image_and_annotation_alone() -> None:
    assert format_of("a", "1", 2, ALL) == format_of("a", "1", 2, ALL[::-1])
    draws = {
        which: [format_of(*names, ALL) for names in group]
        for which, group in {
            "benchmark": [(f"b{n}", "1", 2) for n in range(40)],
            "image": [("a", f"{n}", 2) for n in range(40)],
            "annotation": [("a", "1", n) for n in range(40)],
        }.items()
    }
    assert all(set(formats) == set(ALL) for formats in draws.values())


def test_formats_are_given_out_evenly() -> None:
    counts = Counter(format_of("a", "1", n, ALL) for n in range(4000))
    assert all(900 < count < 1100 for count in counts.values())


def test_each_instance_keeps_exactly_one_format() -> None:
    layouts = assign_formats(from_coco(coco(crowd(1), *(annotation(n) for n in range(2, 22)))), "mine", ALL)
    (layout,) = layouts
    assert layout.instances[0].condition is None
    seen = set()
    for full, shown in zip(layout.requested, restrict(layout, ALL).instances, strict=True):
        given = {
            Condition.BOX: shown.box_xyxy,
            Condition.MASK: shown.mask,
            Condition.POINT: shown.point_xy,
            Condition.SCRIBBLE: shown.scribble_xy,
        }
        assert [name for name, value in given.items() if value is not None] == [full.condition]
        assert (shown.mask_points_xy is not None) == (full.condition is Condition.MASK)
        assert (shown.area is not None) == (full.condition in (Condition.BOX, Condition.MASK))
        assert full.box_xyxy is not None  # the layout itself still knows everything
        seen.add(full.condition)
    assert seen == set(ALL)
    assert restrict(layout, [Condition.BOX]).instances[0].phrase == "cat"


def test_without_a_mask_box_and_point_are_left() -> None:
    records = [annotation(n, segmentation=None) for n in range(1, 30)]
    (layout,) = assign_formats(from_coco(coco(*records)), "mine", ALL)
    assert {one.condition for one in layout.requested} == {Condition.BOX, Condition.POINT}
    (masks_only,) = assign_formats(from_coco(coco(*records)), "mine", [Condition.MASK, Condition.SCRIBBLE])
    assert {one.condition for one in masks_only.requested} == {None}
