"""Withholding: what a benchmark does not allow, a generator never sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from instbench.layouts.types import Condition, Instance, Layout

__all__ = ["restrict"]


def restrict(layout: Layout, conditions: Iterable[Condition]) -> Layout:
    """Keeps only the location formats that a benchmark allows.

    Formats that are not in ``conditions`` become None on every instance; ``mask_points_xy`` stands or
    falls with the mask. An instance that is asked in one format (`Instance.condition`) keeps that one alone.
    Ignored instances (crowds, degenerate ones, those beyond the cap) are removed. The annotated area
    stays out as well unless box or mask is allowed, since it tells the size.

    Args:
        layout: The full layout.
        conditions: The formats that may be seen; empty for text only.

    Returns:
        The restricted layout. `Layout.source_path` stays: the real-image ceiling reads it, models do not.
    """
    allowed = frozenset(Condition(condition) for condition in conditions)
    instances = tuple(_restrict_instance(instance, allowed) for instance in layout.requested)
    return replace(layout, instances=instances)


def _restrict_instance(instance: Instance, allowed: frozenset[Condition]) -> Instance:
    if instance.condition is not None:
        allowed &= {instance.condition}
    mask = Condition.MASK in allowed
    return replace(
        instance,
        box_xyxy=instance.box_xyxy if Condition.BOX in allowed else None,
        mask=instance.mask if mask else None,
        mask_points_xy=instance.mask_points_xy if mask else None,
        point_xy=instance.point_xy if Condition.POINT in allowed else None,
        scribble_xy=instance.scribble_xy if Condition.SCRIBBLE in allowed else None,
        area=instance.area if allowed & {Condition.BOX, Condition.MASK} else None,
    )
