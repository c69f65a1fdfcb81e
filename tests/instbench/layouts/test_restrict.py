from __future__ import annotations

import pytest

from instbench.layouts import Condition, from_coco, restrict
from tests.instbench.layouts.builders import annotation, coco, crowd

FIELDS = {
    Condition.BOX: {"box_xyxy"},
    Condition.MASK: {"mask", "mask_points_xy"},
    Condition.POINT: {"point_xy"},
    Condition.SCRIBBLE: {"scribble_xy"},
}


@pytest.mark.parametrize("conditions", [(), *((c,) for c in Condition), (Condition.BOX, Condition.POINT)])
def test_only_the_allowed_formats_are_left(conditions: tuple[Condition, ...]) -> None:
    (layout,) = from_coco(coco(crowd(1), annotation(2)))
    restricted = restrict(layout, conditions)
    (instance,) = restricted.instances
    kept = set().union(*(FIELDS[condition] for condition in conditions))
    for fields in FIELDS.values():
        for name in fields:
            assert (getattr(instance, name) is not None) == (name in kept)
    assert (instance.area is not None) == bool({Condition.BOX, Condition.MASK} & set(conditions))
    assert instance.phrase == "cat"
    assert restricted.caption == layout.caption


def test_names_of_conditions_work_and_unknown_ones_do_not() -> None:
    (layout,) = from_coco(coco(annotation(2)))
    assert restrict(layout, ["box"]) == restrict(layout, {Condition.BOX})  # type: ignore[list-item]
    with pytest.raises(ValueError, match="depth"):
        restrict(layout, ["depth"])  # type: ignore[list-item]
