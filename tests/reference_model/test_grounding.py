"""Prompts, their checks, and the tensors made from them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_model.grounding import (
    GroundedInstance,
    GroundedPrompt,
    build_grounding,
    instance_prompts,
    latent_masks,
    paste_regions,
    pick_points,
    validate_prompt,
)

CONFIG = SimpleNamespace(
    max_instances=3,
    num_scribble_points=4,
    num_mask_points=8,
    segment_size=64,
    grounding_in_dim=None,
    cross_attention_dim=5,
    convnext_depths=(1, 1, 1, 1),
    masked_attention="correct",
    local_mask_radius={"point": 0.15, "scribble": 0.08},
)
BOX = (0.25, 0.5, 0.75, 1.0)
STROKE = ((0.1, 0.1), (0.2, 0.3), (0.4, 0.5))


def embed(phrases):
    return torch.tensor([[float(len(phrase))] * 5 for phrase in phrases])


def build(*instances, keep=("box", "point", "scribble", "mask"), **options):
    return build_grounding([GroundedPrompt("c", instances)], embed, CONFIG, keep=keep, **options)


def square(size=32):
    mask = np.zeros((size, size), dtype=bool)
    mask[size // 4 : size // 2, size // 2 : 3 * size // 4] = True
    return mask


def test_shapes_dtype_and_slots():
    tensors = build(GroundedInstance("ab", box_xyxy=BOX), GroundedInstance("abc", mask=square()), size=(8, 8))
    shapes = {name: tuple(value.shape) for name, value in tensors.items() if name != "format_masks"}
    assert shapes == {
        "boxes": (1, 3, 4),
        "masks": (1, 3),
        "positive_embeddings": (1, 3, 5),
        "scribbles": (1, 3, 8),
        "polygons": (1, 3, 16),
        "points": (1, 3, 2),
        "segs": (1, 3, 64, 64),
        "instance_masks": (1, 3, 8, 8),
    }
    assert tensors["masks"].tolist() == [[1, 1, 0]]
    assert tensors["positive_embeddings"][0, :, 0].tolist() == [2, 3, 0]
    assert tensors["boxes"][0, 0].tolist() == list(BOX)
    assert {name: row[0].tolist() for name, row in tensors["format_masks"].items()} == {
        "box": [1, 0, 0],
        "point": [0, 0, 0],
        "scribble": [0, 0, 0],
        "mask": [0, 1, 0],
    }
    assert build(GroundedInstance("a"), dtype=torch.float16)["boxes"].dtype == torch.float16


def test_keep_withholds_formats_from_tokens_and_masks():
    full = GroundedInstance("a", box_xyxy=BOX, point_xy=(0.5, 0.75), scribble_xy=STROKE, mask=square())
    tensors = build(full, keep=("point",), size=(8, 8))
    alone = build(GroundedInstance("a", point_xy=(0.5, 0.75)), size=(8, 8))
    assert "segs" not in tensors
    for name in ("boxes", "points", "scribbles", "polygons", "instance_masks"):
        assert torch.equal(tensors[name], alone[name]), name


def test_instance_masks_come_from_the_most_exact_format():
    full = GroundedInstance("a", box_xyxy=BOX, point_xy=(0.1, 0.1), scribble_xy=STROKE, mask=square(8))
    prompt = [GroundedPrompt("c", (full,))]
    by_mask = latent_masks(prompt, CONFIG, (8, 8))[0, 0]
    assert torch.equal(by_mask, torch.from_numpy(square(8)))
    boxed = replace(full, mask=None)
    by_box = latent_masks([GroundedPrompt("c", (boxed,))], CONFIG, (8, 8))[0, 0]
    assert by_box[4:, 2:6].all()
    assert by_box.sum() == 16
    by_stroke = latent_masks([GroundedPrompt("c", (replace(boxed, box_xyxy=None),))], CONFIG, (8, 8))[0, 0]
    assert by_stroke[0, 0]
    assert by_stroke[4, 3]
    assert not by_stroke[7, 7]
    pointed = GroundedInstance("a", point_xy=(0.1, 0.9))
    by_point = latent_masks([GroundedPrompt("c", (pointed,))], CONFIG, (8, 8))[0, 0]
    assert by_point[7, 0]
    assert not by_point[0, 7]


def test_without_local_radius_points_see_everything():
    config = SimpleNamespace(**{**vars(CONFIG), "local_mask_radius": None})
    pointed = GroundedInstance("a", point_xy=(0.1, 0.9))
    assert latent_masks([GroundedPrompt("c", (pointed,))], config, (8, 8))[0, 0].all()
    assert not paste_regions([pointed], config, (8, 8)).any()


def test_published_masks_are_rounded_boxes_with_exchanged_axes():
    boxed = GroundedInstance("a", box_xyxy=(0.1, 0.2, 0.55, 0.9))
    mask = latent_masks([GroundedPrompt("c", (boxed,))], CONFIG, (16, 16), mode="published")[0, 0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[2:9, 3:14] = True
    assert torch.equal(mask, expected)


def test_no_instances_give_empty_slots():
    tensors = build(size=(8, 8))
    assert not tensors["masks"].any()
    assert not tensors["instance_masks"].any()


def test_mode_none_leaves_instance_masks_out():
    assert "instance_masks" not in build(GroundedInstance("a"), size=(8, 8), masked_attention="none")


def test_mask_points_are_relative_and_do_not_depend_on_the_batch():
    tiny = np.zeros((16, 16), dtype=bool)
    tiny[4:6, 4:6] = True  # fewer pixels than points: the published rule draws at random
    alone = build(GroundedInstance("a", mask=tiny))
    other = build(GroundedInstance("b", mask=square(16)), GroundedInstance("a", mask=tiny))
    assert torch.equal(alone["polygons"][0, 0], other["polygons"][0, 1])
    assert alone["polygons"][0, 0].min() > 0.2
    assert alone["polygons"][0, 0].max() < 0.5


def test_segments_are_resized_by_nearest_pixel_centre():
    segs = build(GroundedInstance("a", mask=square(128)))["segs"][0, 0]
    assert torch.equal(segs.bool(), torch.from_numpy(square(64)))


def test_an_empty_mask_counts_as_absent():
    tensors = build(GroundedInstance("a", mask=np.zeros((8, 8), dtype=bool)), size=(8, 8))
    assert not tensors["format_masks"]["mask"].any()
    assert not tensors["segs"].any()


@given(total=st.integers(2, 50), count=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_pick_points_keeps_order_and_count(total, count):
    points = [(float(i), 0.0) for i in range(total)]
    picked = pick_points(points, count)[:, 0]
    assert len(picked) == count
    assert (np.diff(picked) >= 0).all()
    assert picked[0] == 0
    if total == count:
        assert picked.tolist() == [float(i) for i in range(total)]


def test_instance_prompts_take_phrase_and_place():
    prompt = GroundedPrompt("both", (GroundedInstance("a", box_xyxy=BOX), GroundedInstance("b")))
    alone = instance_prompts(prompt)
    assert [each.caption for each in alone] == ["a", "b"]
    assert alone[0].instances == (prompt.instances[0],)


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        (GroundedInstance(" "), "phrase is empty"),
        (GroundedInstance("a", box_xyxy=(0.5, 0.1, 0.4, 0.2)), "x0 < x1"),
        (GroundedInstance("a", box_xyxy=(0.1, 0.2, 0.4, 0.2)), "y0 < y1"),
        (GroundedInstance("a", box_xyxy=(0.1, 0.2, 1.4, 0.9)), "outside the canvas"),
        (GroundedInstance("a", point_xy=(0.5, -0.2)), "outside the canvas"),
        (GroundedInstance("a", point_xy=(float("nan"), 0.2)), "outside the canvas"),
        (GroundedInstance("a", scribble_xy=[(0.5, 0.5)]), "1 points"),
        (GroundedInstance("a", mask=np.zeros((2, 8, 8))), "mask of shape"),
        (GroundedInstance("a", mask=np.zeros((0, 8))), "mask of shape"),
        (GroundedInstance("a", mask=[[0, 1]]), "mask is a list; give an array"),
        (GroundedInstance(None), "phrase is empty or no text"),
        (GroundedInstance("a", box_xyxy=(0.1, 0.1, 0.5)), "is not four numbers x0, y0, x1, y1"),
        (GroundedInstance("a", box_xyxy=(None, 0.1, 0.5, 0.5)), "box corner"),
        (GroundedInstance("a", box_xyxy="0123"), "is not four numbers"),
        (GroundedInstance("a", point_xy=(0.1, 0.1, 0.5)), "is not x and y"),
        (GroundedInstance("a", scribble_xy=np.zeros(40)), "is not pairs of x and y"),
        (GroundedInstance("a", scribble_xy=[]), "scribble with 0 points"),
        (GroundedInstance("a", mask_points_xy=[(0.1, 0.2), (0.3,)]), "is not pairs of x and y"),
    ],
)
def test_bad_instances_are_named(instance, message):
    prompt = GroundedPrompt("c", (GroundedInstance("fine"), instance))
    with pytest.raises(ValueError, match=message) as error:
        validate_prompt(prompt, 3, name="img-7")
    assert str(error.value).startswith("img-7, instance 1")
    assert "\n" not in str(error.value)


def test_a_caption_must_be_text():
    with pytest.raises(ValueError, match="p: the caption is a NoneType"):
        validate_prompt(GroundedPrompt(None), 3, name="p")


def test_arrays_of_points_are_fine():
    instance = GroundedInstance("a", box_xyxy=np.array(BOX), scribble_xy=np.array(STROKE))
    expected = build(GroundedInstance("a", box_xyxy=BOX, scribble_xy=STROKE))
    assert torch.equal(build(instance)["scribbles"], expected["scribbles"])
    assert torch.equal(build(instance)["boxes"], expected["boxes"])


def test_too_many_instances_are_an_error():
    with pytest.raises(ValueError, match="4 instances, the model has 3 slots"):
        build(*[GroundedInstance("a")] * 4)


def test_corners_rounded_over_the_edge_are_clamped():
    tensors = build(GroundedInstance("a", box_xyxy=(-0.0004, 0.1, 1.0003, 0.9)))
    assert tensors["boxes"][0, 0].tolist() == pytest.approx([0.0, 0.1, 1.0, 0.9])
