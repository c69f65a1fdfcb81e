"""Layouts as grounded prompts."""

from __future__ import annotations

import logging

import pytest

from instbench.generators.prompts import to_prompt
from instbench.layouts.types import Condition

from .helpers import instance, layout

FIELDS = {
    Condition.BOX: {"box_xyxy"},
    Condition.POINT: {"point_xy"},
    Condition.SCRIBBLE: {"scribble_xy"},
    Condition.MASK: {"mask", "mask_points_xy"},
}
ALL = set().union(*FIELDS.values())


@pytest.mark.parametrize("condition", list(Condition))
def test_exactly_the_named_condition_is_shown(condition):
    prompt, dropped = to_prompt(layout("k", instance()), {condition}, 4)
    shown = {name for name in ALL if getattr(prompt.instances[0], name) is not None}
    assert shown == FIELDS[condition]
    assert dropped == 0
    assert prompt.caption == "a scene"
    assert prompt.instances[0].phrase == "thing 0"


def test_no_condition_means_text_only():
    assert to_prompt(layout("k", instance()), set(), 4)[0].instances == ()


def test_masks_are_decoded():
    mask = to_prompt(layout("k", instance()), {Condition.MASK}, 4)[0].instances[0].mask
    assert mask.shape == (16, 16)
    assert mask.sum() == 36


def test_ignored_instances_never_condition():
    crowd = instance(1, is_crowd=True, is_ignored=True, ignore_reason="crowd")
    prompt, dropped = to_prompt(layout("k", crowd, instance()), {Condition.BOX}, 4)
    assert [each.phrase for each in prompt.instances] == ["thing 0"]
    assert dropped == 0


def test_instances_over_the_slots_are_dropped_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        prompt, dropped = to_prompt(layout("k", *map(instance, range(5))), {Condition.BOX}, 3)
    assert [each.phrase for each in prompt.instances] == ["thing 0", "thing 1", "thing 2"]
    assert dropped == 2
    assert "k: 5 instances, the model has 3 slots" in caplog.text
