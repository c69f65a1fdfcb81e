"""Hybrid layouts: every instance is asked in one of several formats."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace

from instbench.layouts.types import Condition, Instance, Layout

__all__ = ["assign_formats", "format_of"]


def assign_formats(
    layouts: Iterable[Layout], benchmark: str, conditions: Collection[Condition]
) -> list[Layout]:
    """Gives every requested instance the one format that it is asked in.

    Args:
        layouts: Full layouts.
        benchmark: Benchmark name; another benchmark mixes the formats in another way.
        conditions: The formats to choose from.

    Returns:
        The layouts with `Instance.condition` set. An instance has a choice among the formats that its
        annotation allows: without a mask, box and point. Ignored instances stay as they are.
    """
    return [
        replace(
            layout,
            instances=tuple(
                one if one.is_ignored else _with_format(one, layout.image_key, benchmark, conditions)
                for one in layout.instances
            ),
        )
        for layout in layouts
    ]


def format_of(
    benchmark: str, image_key: str, annotation_id: int, conditions: Collection[Condition]
) -> Condition:
    """The format of one instance: a hash of its names, so that nothing else in the file matters.

    Args:
        benchmark: Benchmark name.
        image_key: Key of the layout.
        annotation_id: Annotation id.
        conditions: At least one format; their order does not matter.

    Returns:
        One of the formats.
    """
    choices = sorted(Condition(one) for one in conditions)
    text = f"instbench-hybrid-v1\n{benchmark}\n{image_key}\n{annotation_id}"
    digest = hashlib.sha256(text.encode()).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def _with_format(
    instance: Instance, image_key: str, benchmark: str, conditions: Collection[Condition]
) -> Instance:
    given = {
        Condition.BOX: instance.box_xyxy,
        Condition.MASK: instance.mask,
        Condition.POINT: instance.point_xy,
        Condition.SCRIBBLE: instance.scribble_xy,
    }
    possible = [one for one in conditions if given[one] is not None]
    if not possible:
        return instance
    return replace(instance, condition=format_of(benchmark, image_key, instance.annotation_id, possible))
