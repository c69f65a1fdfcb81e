"""Layouts as grounded prompts of the reference model."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from instbench.layouts.restrict import restrict
from instbench.layouts.rle import decode
from instbench.layouts.types import Condition, Instance, Layout
from reference_model.grounding import GroundedInstance, GroundedPrompt

__all__ = ["to_prompt"]

logger = logging.getLogger(__name__)


def _grounded(instance: Instance) -> GroundedInstance:
    return GroundedInstance(
        phrase=instance.phrase,
        box_xyxy=instance.box_xyxy,
        point_xy=instance.point_xy,
        scribble_xy=instance.scribble_xy,
        mask_points_xy=instance.mask_points_xy,
        mask=None if instance.mask is None else decode(instance.mask),
    )


def to_prompt(
    layout: Layout, conditions: Iterable[Condition], max_instances: int
) -> tuple[GroundedPrompt, int]:
    """Turns a layout into a prompt that shows exactly the formats that are allowed.

    Args:
        layout: The layout; it is restricted once more, so a withheld format never reaches the model.
        conditions: Allowed formats; none means text only (the caption alone).
        max_instances: Slots of the model; later instances are dropped with a warning.

    Returns:
        The prompt and the number of dropped instances.
    """
    allowed = frozenset(conditions)
    if not allowed:
        return GroundedPrompt(layout.caption), 0
    instances = restrict(layout, allowed).instances
    dropped = max(0, len(instances) - max_instances)
    if dropped:
        logger.warning(
            "%s: %d instances, the model has %d slots; the last %d are not shown to it",
            layout.image_key,
            len(instances),
            max_instances,
            dropped,
        )
    return GroundedPrompt(layout.caption, tuple(map(_grounded, instances[:max_instances]))), dropped
