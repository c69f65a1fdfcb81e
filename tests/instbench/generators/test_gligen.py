"""GLIGEN as a generator: boxes alone reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instbench.errors import InputError
from instbench.generators.base import SamplingSettings
from instbench.generators.boxes import POINT_SIDE
from instbench.generators.gligen import GligenGenerator
from instbench.generators.text_only import TextOnlyGenerator
from instbench.layouts.types import Condition
from tests.reference_model.tiny import tiny_pipeline

from .helpers import instance, layout, request

TINY = {"grounding_net": "gligen", "use_scaleu": False, "masked_attention": "none", "local_mask_radius": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gligen")
    tiny_pipeline(**TINY).save_pretrained(path)
    return path


def picture(generator, condition: Condition | None, **changes) -> np.ndarray:
    shown = set() if condition is None else {condition}
    [made] = generator.generate([request(layout("a", instance(**changes)), shown)])
    return np.asarray(made.image).astype(int)


def test_every_condition_is_drawn_from_its_box(folder):
    generator = GligenGenerator(folder, device="cpu")
    assert generator.conditions == frozenset(Condition)
    half = POINT_SIDE / 2
    same = picture(generator, Condition.BOX, box_xyxy=(0.4 - half, 0.3 - half, 0.4 + half, 0.3 + half))
    assert np.array_equal(picture(generator, Condition.POINT, point_xy=(0.4, 0.3)), same)
    assert not np.array_equal(picture(generator, Condition.MASK), same)


def test_withheld_boxes_do_not_change_the_image(folder):
    generator = GligenGenerator(folder, device="cpu")
    bare = picture(
        generator, Condition.SCRIBBLE, box_xyxy=None, mask=None, mask_points_xy=None, point_xy=None
    )
    assert np.array_equal(picture(generator, Condition.SCRIBBLE), bare)


def test_the_floor_takes_its_weights(folder):
    floor = TextOnlyGenerator(folder, device="cpu")
    first, second = picture(floor, Condition.BOX), picture(floor, Condition.BOX, phrase="another")
    assert np.array_equal(first, second)
    assert np.array_equal(first, picture(GligenGenerator(folder, device="cpu"), None))


def test_identity_tells_how_boxes_are_made(folder):
    identity = GligenGenerator(folder, device="cpu").identity()
    assert identity["kind"] == "gligen"
    assert identity["boxes"]["point_side"] == POINT_SIDE
    assert "unet/diffusion_pytorch_model.safetensors" in identity["sha256"]


def test_the_shipped_baseline_is_the_default():
    generator = GligenGenerator(device="cpu")
    assert generator.folder.name == "shapes-gligen"
    chosen = generator.resolve_sampling(SamplingSettings())
    assert (chosen.num_inference_steps, chosen.guidance_scale, chosen.mis) == (25, 4.0, 0.0)
    assert generator.resolve_sampling(SamplingSettings(mis=0.2)).mis == 0.2


def test_the_reference_model_is_refused(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="--model reference"):
        GligenGenerator(tmp_path)
