from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.attention_masks import box_masks, build_attention_masks, level_sizes

FIXTURES = Path(__file__).parent / "fixtures"


def test_published_mask_equals_recorded(
    golden_grounding: dict[str, Tensor], load_arrays: Callable[[str], dict[str, Tensor]]
) -> None:
    masks = build_attention_masks(
        golden_grounding["att_masks"], sizes=level_sizes(16, 16, 4), mode="published", segment_tokens=64
    )
    assert set(masks) == {256}
    bits = np.unpackbits(load_arrays("unet")["att_mask_packedbits_u8"].numpy())[: 440 * 440].reshape(440, 440)
    assert torch.equal(masks[256][0, 0], torch.from_numpy(bits).bool()[:256])


def test_recorded_instance_masks_are_transposed_boxes(golden_grounding: dict[str, Tensor]) -> None:
    filled = box_masks(golden_grounding["boxes"], 16, 16, transposed=True)
    assert torch.equal(filled, golden_grounding["att_masks"] > 0)
    upright = box_masks(golden_grounding["boxes"], 16, 16)
    assert torch.equal(upright.transpose(-1, -2), filled)
    with pytest.raises(ValueError, match="square"):
        box_masks(golden_grounding["boxes"], 16, 8, transposed=True)


def test_box_rounding_equals_recorded() -> None:
    for entry in json.loads((FIXTURES / "points.json").read_text())["attmask_from_box"]:
        box = torch.tensor(entry["box"], dtype=torch.float64)
        mask = box_masks(box, entry["size"], entry["size"], transposed=True)
        for axis, key in ((1, "first_axis_range"), (0, "second_axis_range")):
            used = mask.any(dim=axis).nonzero().flatten().tolist()
            assert used[:1] + used[-1:] == entry[key]


def test_level_sizes_round_up() -> None:
    assert level_sizes(24, 24, 4) == [(24, 24), (12, 12), (6, 6), (3, 3)]
    assert level_sizes(7, 20, 3) == [(7, 20), (4, 10), (2, 5)]


def test_published_rules_on_a_line() -> None:
    instances = torch.tensor([[[[1, 1, 0, 0]], [[0, 0, 1, 0]]], [[[0, 0, 0, 0]], [[0, 0, 0, 0]]]])
    kwargs = {"sizes": [(1, 4), (1, 2)], "segment_tokens": 1}
    masks = build_attention_masks(instances, mode="published", **kwargs)  # type: ignore[arg-type]
    assert set(masks) == {4}
    background = masks[4][0, 0, 3].tolist()
    assert background == [False, False, False, True] + [False] * 2 + [True] * 4 + [False] * 2 + [True]
    assert masks[4][1].all()  # a sample without masks stays unmasked
    for keep in (("point",), ("scribble", "point")):
        assert build_attention_masks(instances, mode="published", keep=keep, **kwargs) == {}  # type: ignore[arg-type]
    assert build_attention_masks(instances, mode="none", **kwargs) == {}  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(0, 10_000))
def test_correct_rules(height: int, width: int, slots: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    instances = torch.rand(2, slots, height, width, generator=generator) > 0.7
    filled = torch.rand(2, slots, generator=generator) > 0.3
    sizes = level_sizes(height, width, 2)
    masks = build_attention_masks(instances, sizes=sizes, mode="correct", segment_tokens=2, token_mask=filled)
    assert set(masks) == {h * w for h, w in sizes}
    count = height * width
    full = masks[count]
    assert full.shape == (2, 1, count, count + 4 * slots + 2)
    for b in range(2):
        inside = instances[b].flatten(1)
        for p in range(count):
            row = full[b, 0, p]
            assert row[p]
            assert row[-2:].all()
            assert row[:count].all() or inside[:, p].any()  # background sees every visual token
            for q in range(count):
                if inside[:, p].any() and p != q:
                    assert row[q] == (inside[:, p] & inside[:, q]).any()
            tokens = row[count:-2].view(4, slots)
            assert (tokens == (inside[:, p] & filled[b])).all()


def test_correct_pools_with_max() -> None:
    instances = torch.zeros(1, 1, 4, 4)
    instances[0, 0, 3, 0] = 1  # row 3, column 0
    masks = build_attention_masks(instances, sizes=level_sizes(4, 4, 2), mode="correct", segment_tokens=0)
    sees_tokens = masks[4][0, 0, :, 4]
    assert sees_tokens.tolist() == [False, False, True, False]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unknown mode 'right'"):
        build_attention_masks(torch.zeros(1, 1, 2, 2), sizes=[(2, 2)], mode="right", segment_tokens=0)
    with pytest.raises(ValueError, match=r"expected \[B, N, 4, 4\]"):
        build_attention_masks(torch.zeros(1, 1, 2, 2), sizes=[(4, 4)], mode="correct", segment_tokens=0)


def test_one_token_per_slot_takes_the_place_of_four() -> None:
    boxes = torch.zeros(1, 2, 4, 4)
    boxes[0, 0, :2, :2] = 1
    boxes[0, 1, 2:, 1:] = 1
    arguments = {"sizes": [(4, 4), (2, 2)], "mode": "correct", "segment_tokens": 3}
    four = build_attention_masks(boxes, **arguments)
    one = build_attention_masks(boxes, **arguments, tokens_per_slot=1)
    for places in (16, 4):
        assert one[places].shape == (1, 1, places, places + 2 + 3)
        own = slice(places, places + 2)
        assert torch.equal(one[places][..., own], four[places][..., own])
        assert torch.equal(one[places][..., :places], four[places][..., :places])
        assert one[places][..., -3:].all()
    with pytest.raises(ValueError, match="'published' is for 4 tokens per slot, these are 1"):
        build_attention_masks(boxes, sizes=[(4, 4)], mode="published", segment_tokens=3, tokens_per_slot=1)
