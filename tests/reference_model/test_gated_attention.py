from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention import GatedSelfAttentionDense
from torch import Tensor

from reference_model.gated_attention import GatedSelfAttention, Grounding
from reference_model.unet import InstanceUNet


@pytest.fixture
def fuser(golden_unet: InstanceUNet) -> GatedSelfAttention:
    module = golden_unet.down_blocks[1].attentions[0].transformer_blocks[0].fuser
    assert isinstance(module, GatedSelfAttention)
    return module


@pytest.mark.parametrize("scale", [1, 0.5, 0])
def test_equals_recorded(
    scale: float,
    fuser: GatedSelfAttention,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("gated_sa")
    out = fuser(recorded["x"], Grounding(recorded["objs"], scale))
    assert relative_error(out, recorded[f"out_scale{scale}"]) <= 1e-5
    per_sample = fuser(recorded["x"], Grounding(recorded["objs"], torch.full((2,), float(scale))))
    assert relative_error(per_sample, recorded[f"out_scale{scale}"]) <= 1e-5


def test_attention_equals_recorded(
    fuser: GatedSelfAttention,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("gated_sa")
    assert (
        relative_error(fuser.attend(recorded["x"], Grounding(recorded["objs"])), recorded["attn_visual"])
        <= 1e-5
    )


def test_scale_zero_returns_the_input_itself(fuser: GatedSelfAttention) -> None:
    x = torch.randn(2, 64, 64)
    assert fuser(x, Grounding(torch.full((2, 184, 32), float("nan")), 0.0)) is x


def test_projected_keys_and_values_give_the_same(
    fuser: GatedSelfAttention, load_arrays: Callable[[str], dict[str, Tensor]]
) -> None:
    recorded = load_arrays("gated_sa")
    ahead = Grounding(recorded["objs"], projected={fuser.name: fuser.project_tokens(recorded["objs"])})
    assert torch.equal(fuser(recorded["x"], ahead), fuser(recorded["x"], recorded["objs"]))


def test_plain_tokens_equal_the_diffusers_layer() -> None:
    torch.manual_seed(0)
    ours, theirs = GatedSelfAttention(16, 8, 2, 8), GatedSelfAttentionDense(16, 8, 2, 8)
    ours.alpha_attn.data.fill_(0.7)
    ours.alpha_dense.data.fill_(-0.4)
    theirs.load_state_dict(ours.state_dict())
    x, tokens = torch.randn(3, 9, 16), torch.randn(3, 5, 8)
    assert torch.allclose(ours(x, tokens), theirs(x, tokens), atol=1e-5)


def test_hidden_tokens_do_not_matter(
    fuser: GatedSelfAttention, load_arrays: Callable[[str], dict[str, Tensor]]
) -> None:
    recorded = load_arrays("gated_sa")
    mask = torch.ones(2, 1, 64, 64 + 184, dtype=torch.bool)
    mask[..., 100:] = False
    changed = recorded["objs"].clone()
    changed[:, 36:] = 7.0
    first, second = (Grounding(tokens, attention_masks={64: mask}) for tokens in (recorded["objs"], changed))
    assert torch.equal(fuser(recorded["x"], first), fuser(recorded["x"], second))
    other_level = Grounding(recorded["objs"], attention_masks={256: mask})
    assert torch.equal(fuser(recorded["x"], other_level), fuser(recorded["x"], recorded["objs"]))


def test_select_scale_and_move() -> None:
    key = torch.arange(3.0).view(3, 1, 1, 1)
    grounding = Grounding(
        torch.arange(3.0).view(3, 1, 1),
        torch.tensor([0.0, 1.0, 2.0]),
        {4: torch.tensor([True, False, True]).view(3, 1, 1, 1)},
        {"a": (key, key + 1)},
    )
    some = grounding.select(torch.tensor([2, 2, 1]))
    assert some.tokens.flatten().tolist() == [2, 2, 1]
    assert isinstance(some.scale, torch.Tensor)
    assert some.scale.tolist() == [2, 2, 1]
    assert some.attention_masks[4].flatten().tolist() == [True, True, False]
    assert some.projected["a"][1].flatten().tolist() == [3, 3, 2]
    assert grounding.with_scale(0.5).select(slice(0, 1)).scale == 0.5
    half = grounding.to(dtype=torch.bfloat16)
    assert half.tokens.dtype == half.projected["a"][0].dtype == torch.bfloat16
    assert half.attention_masks[4].dtype == torch.bool
