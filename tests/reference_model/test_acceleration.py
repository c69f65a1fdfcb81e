"""The fast schedule's shortcuts change nothing but the time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_model.gated_attention import GatedSelfAttention, Grounding
from reference_model.sampling.acceleration import (
    FusedGates,
    OneDnnLinears,
    SharedStart,
    TextCache,
    is_compiled,
)
from reference_model.sampling.tokens import drop_unseen_tokens, prepare_tokens
from reference_model.unifusion import FORMATS
from tests.reference_model.tiny import tiny_unet

WIDTH = 16


@pytest.fixture(scope="module")
def unet():
    return tiny_unet().requires_grad_(False)


@pytest.fixture
def products(monkeypatch):
    """Counts the products that go to oneDNN."""
    calls = []
    mode = OneDnnLinears()
    if mode._product is None:
        pytest.skip("this PyTorch lacks the operator")
    own = mode._product
    monkeypatch.setattr(mode, "_product", lambda *args: calls.append(1) or own(*args))
    return mode, calls


@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=2),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_linear_layers_stay_equal(shape, sizes, bias, seed):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, sizes[0], generator=gen)
    weight = torch.randn(sizes[1], sizes[0], generator=gen)
    offset = torch.randn(sizes[1], generator=gen) if bias else None
    with torch.no_grad():
        expected = F.linear(x, weight, offset)
        with OneDnnLinears():
            actual = F.linear(x, weight, offset)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


def test_linear_layers_that_do_not_suit_go_the_usual_way(products):
    mode, calls = products
    layer = torch.nn.Linear(8, 8)
    x = torch.randn(40, 8)
    with mode:
        assert layer(x).requires_grad  # gradients are recorded
        with torch.no_grad():
            layer(x[:4])
            layer.bfloat16()(x.bfloat16())
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert F.linear(x, torch.randn(8, 8)).dtype == torch.bfloat16
            assert not calls
            F.linear(x.t().contiguous().t(), torch.randn(8, 8))
    assert len(calls) == 1


def test_cached_texts_give_the_same(unet):
    gen = torch.Generator().manual_seed(1)
    states = torch.randn(3, 6, WIDTH, generator=gen)
    rows = torch.tensor([2, 0, 2])
    sample = torch.randn(3, 4, 8, 8, generator=gen)
    before = {name: type(processor) for name, processor in unet.attn_processors.items()}
    expected = unet(sample, 500, states[rows]).sample
    cache = TextCache(unet, states, budget=2**30)
    with cache.use(rows):
        # The keys and values are known: the states are not read.
        actual = unet(sample, 500, torch.zeros_like(states)).sample
        assert {type(each) for each in unet.attn_processors.values()} != set(before.values())
    assert (actual - expected).abs().max() < 1e-5
    with pytest.raises(RuntimeError, match="stop"), cache.use(rows):
        raise RuntimeError("stop")
    assert {name: type(processor) for name, processor in unet.attn_processors.items()} == before


def test_texts_are_not_cached_beyond_the_budget_or_with_other_processors():
    unet = tiny_unet()
    states = torch.randn(3, 6, WIDTH)
    assert not TextCache(unet, states, budget=100)._tables
    number = len(TextCache(unet, states, budget=2**30)._tables)
    name = next(name for name in unet.attn_processors if "attn2" in name)
    unet.set_attn_processor({**unet.attn_processors, name: AttnProcessor()})
    assert len(TextCache(unet, states, budget=2**30)._tables) == number - 1
    compiled: Any = torch.compile(tiny_unet(), backend="eager")
    assert is_compiled(compiled)
    assert not TextCache(compiled, states, budget=2**30)._tables


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_tokens_that_nobody_sees_can_go(seed, share):
    gen = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    layer = GatedSelfAttention(8, 4, 2, 4).eval()
    layer.alpha_attn.data.fill_(1.0)
    mask = torch.rand(2, 1, 9, 9 + 5, generator=gen) < share
    mask[..., :9] |= torch.eye(9, dtype=torch.bool)
    grounding = Grounding(torch.randn(2, 5, 4, generator=gen), attention_masks={9: mask})
    fewer = drop_unseen_tokens(grounding)
    number = int(mask[..., 9:].any(dim=0).any(dim=0).any(dim=0).sum())
    assert fewer.tokens.shape[1] == number
    assert fewer.attention_masks[9].shape[-1] == 9 + number
    x = torch.randn(2, 9, 8, generator=gen)
    assert (layer(x, grounding) - layer(x, fewer)).abs().max() < 1e-6


def test_grounding_without_masks_keeps_its_tokens():
    grounding = Grounding(torch.randn(1, 5, 4))
    assert drop_unseen_tokens(grounding) is grounding


def test_prepared_tokens_hold_what_is_seen_and_masks_to_add(unet):
    slots = unet.config.max_instances
    filled = torch.zeros(2, slots)
    filled[0, :2] = filled[1, :1] = 1
    where = torch.zeros(2, slots, 8, 8)
    where[:, :2, 2:5, 1:6] = filled[:, :2, None, None]
    tensors = {
        "boxes": torch.rand(2, slots, 4) * filled[..., None],
        "masks": filled,
        "positive_embeddings": torch.randn(2, slots, WIDTH) * filled[..., None],
        "instance_masks": where,
    }
    options: dict[str, Any] = {"keep": FORMATS, "size": (8, 8), "device": torch.device("cpu")}
    prepared = prepare_tokens(unet, [tensors], masked_attention="correct", **options)
    assert prepared is not None
    segments = unet.position_net.num_segment_tokens
    assert prepared.tokens.shape[:2] == (3, 4 * 2 + segments)
    assert {mask.dtype for mask in prepared.attention_masks.values()} == {torch.float32}
    whole = prepare_tokens(unet, [tensors], masked_attention="none", **options)
    assert whole is not None
    assert whole.tokens.shape[1] == unet.position_net.num_tokens

    plain = dict(tensors)
    del plain["instance_masks"]
    tokens = unet.position_net(**plain)
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 6, WIDTH)
    expected = unet(x, 10, text, tokens, instance_masks=where, masked_attention="correct").sample
    actual = unet(x, 10, text, prepared.select(slice(0, 2))).sample
    assert (actual - expected).abs().max() < 1e-5


def test_one_timestep_equals_one_per_sample(unet):
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 6, WIDTH)
    each = unet(x, torch.tensor([300, 300]), text).sample
    for shared in (300, torch.tensor(300)):
        assert (unet(x, shared, text).sample - each).abs().max() < 1e-5


@pytest.fixture
def inputs():
    gen = torch.Generator().manual_seed(3)
    latents, context = torch.randn(2, 4, 8, 8, generator=gen), torch.randn(5, 7, WIDTH, generator=gen)
    return latents[torch.tensor([0, 0, 0, 1, 1])], context


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D")},
        {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "use_linear_projection": True},
        {"only_cross_attention": True},
    ],
)
def test_rows_of_equal_latents_share_their_start(inputs, changes):
    latents, context = inputs
    unet = tiny_unet(**changes).requires_grad_(False)
    tokens = torch.randn(5, unet.position_net.num_tokens, WIDTH, generator=torch.Generator().manual_seed(4))
    expected = unet(latents, 500, context, grounding_tokens=tokens).sample
    sizes = []
    handle = (
        unet.down_blocks[0]
        .resnets[0]
        .conv1.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    )
    shared = SharedStart(unet)
    with shared.use(torch.tensor([0, 0, 0, 1, 1])):
        actual = unet(latents, 500, context, grounding_tokens=tokens).sample
    assert sizes == [2]
    assert torch.allclose(actual, expected, atol=1e-5)
    with shared.use(torch.arange(5)):
        unet(latents, 500, context, grounding_tokens=tokens)
    unet(latents, 500, context, grounding_tokens=tokens)
    handle.remove()
    assert sizes == [2, 5, 5]
    assert not any("forward" in module.__dict__ for module in unet.modules())


def test_hooks_of_other_libraries_stay(unet, inputs):
    latents, context = inputs
    module = unet.conv_in
    own, calls = module.forward, []
    module.forward = lambda *args: calls.append(1) or own(*args)
    hooked = module.forward
    try:
        with SharedStart(unet).use(torch.tensor([0, 0, 0, 1, 1])):
            unet(latents, 500, context)
        assert calls == [1]
        assert module.forward is hooked
    finally:
        del module.forward


def test_fused_gates_change_nothing(unet, products):
    linears, _ = products
    gen = torch.Generator().manual_seed(5)
    latents, context = torch.randn(2, 4, 16, 16, generator=gen), torch.randn(2, 7, WIDTH, generator=gen)
    gates = FusedGates(unet, linears)
    with torch.no_grad():
        expected = unet(latents, 500, context).sample
        with gates.use():
            actual = unet(latents, 500, context).sample
    assert torch.allclose(actual, expected, atol=1e-5)
    assert not any("forward" in module.__dict__ for module in unet.modules())
    # Half precision and recorded gradients go the usual way.
    with gates.use(), torch.enable_grad():
        sample = latents.clone().requires_grad_()
        unet(sample, 500, context).sample.sum().backward()
    assert sample.grad is not None
