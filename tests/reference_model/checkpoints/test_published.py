from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from torch import Tensor

from reference_model.checkpoints import gligen_to_original, to_published, unet_config, unet_from_published
from reference_model.checkpoints.published import name_map
from reference_model.unet import InstanceUNet

from . import builders

FIXTURES = Path(__file__).parents[1] / "fixtures"

Tensors = dict[str, Tensor]
FULL_PARAMS = {
    "image_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "context_dim": 768,
    "grounding_tokenizer": {"params": {"in_dim": 768, "out_dim": 768, "test_drop_scribbles": True}},
}


def test_round_trip_is_exact(golden_unet: InstanceUNet, published_weights: Tensors) -> None:
    back = to_published(golden_unet)
    assert set(back) == set(published_weights)
    assert all(torch.equal(back[name], tensor.float()) for name, tensor in published_weights.items())


def test_loaded_model_is_float32_eval_and_its_own(
    published_weights: Tensors, published_params: dict[str, Any]
) -> None:
    source = {name: tensor.float() for name, tensor in published_weights.items()}
    unet = unet_from_published(source, published_params)
    assert not unet.training
    assert {p.dtype for p in unet.parameters()} == {torch.float32}
    assert {p.device.type for p in unet.parameters()} == {"cpu"}
    assert all(p.requires_grad for p in unet.parameters())
    source["out.2.bias"].fill_(9.0)
    assert not torch.equal(unet.conv_out.bias, source["out.2.bias"])


def test_full_size_names_and_shapes() -> None:
    full = json.loads((FIXTURES / "full_size_keys.json").read_text())
    with torch.device("meta"):
        checkpoint = {name: torch.empty(shape) for name, shape in full["keys"].items()}
        unet = InstanceUNet(**unet_config(checkpoint, FULL_PARAMS))
    names = name_map(unet)
    own = unet.state_dict()
    assert {theirs: list(own[ours].shape) for ours, theirs in names.items()} == full["keys"]
    assert len(set(names.values())) == len(names) == 1199
    assert sum(p.numel() for p in unet.parameters()) == full["params"]["total"]
    assert unet.config.convnext_depths == [3, 3, 9, 3]
    assert unet.config.grounding_mid_dim == 3072
    assert list(unet.config.grounding_keep) == ["box", "point", "mask"]
    assert unet.position_net.num_tokens == 184


def test_every_attention_layout_maps_one_to_one(tiny_config: dict[str, Any]) -> None:
    params = {
        "model_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "num_heads": 4,
        "context_dim": 32,
    }
    unet = InstanceUNet(**tiny_config)
    published = to_published(unet)
    assert "output_blocks.1.2.conv.weight" in published
    again = unet_from_published(published, params)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in unet.state_dict().items())


SHAPES = {
    "three levels, one layer": ((32, (1, 2, 3), 1, [2, 1]), {}),
    "three layers, deep attention": ((32, (1, 1, 2), 3, [4, 2]), {}),
    "two blocks per transformer": ((32, (1, 2), 1, [2, 1]), {"transformer_layers_per_block": 2}),
    "all attend, odd ConvNeXt": ((64, (1, 2), 2, [1, 2]), {"convnext_depths": [1, 2, 1, 1]}),
}


def odd_model(name: str) -> tuple[InstanceUNet, dict[str, Any]]:
    """A model of unusual sizes and random weights, with its params under their published names."""
    (base, mult, layers, resolutions), extra = SHAPES[name]
    attends = [2**level in resolutions for level in range(len(mult))]
    sizes: dict[str, Any] = {
        "block_out_channels": [base * m for m in mult],
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "grounding_in_dim": 20,
        "grounding_mid_dim": 12,
        "convnext_depths": [1, 1, 1, 1],
        "convnext_widths": [4, 8, 8, 12],
    }
    torch.manual_seed(0)
    unet = InstanceUNet(**(sizes | extra)).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    params = {
        "model_channels": base,
        "channel_mult": list(mult),
        "num_res_blocks": layers,
        "attention_resolutions": resolutions,
        "num_heads": 4,
        "context_dim": 24,
        "transformer_depth": extra.get("transformer_layers_per_block", 1),
        "grounding_tokenizer": {
            "target": "ldm.modules.diffusionmodules.text_grounding_net.UniFusion",
            "params": {"in_dim": 20, "out_dim": 24, "mid_dim": 12, "test_drop_masks": True},
        },
    }
    return unet, params


@pytest.mark.parametrize("name", SHAPES)
def test_other_sizes_load_and_predict_the_same(name: str) -> None:
    unet, params = odd_model(name)
    published = to_published(unet)
    again = unet_from_published({key: tensor.numpy() for key, tensor in published.items()}, params)
    assert again.config.grounding_keep == ["box", "point"]
    back = to_published(again)
    assert set(back) == set(published)
    assert all(torch.equal(back[key], tensor) for key, tensor in published.items())
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(2, 30)
    masks[0, :3] = masks[1, :5] = 1
    grounding = {
        "boxes": torch.rand(2, 30, 4, generator=generator),
        "masks": masks,
        "positive_embeddings": torch.randn(2, 30, 20, generator=generator),
        "polygons": torch.rand(2, 30, 512, generator=generator),
        "segs": torch.rand(2, 30, 96, 96, generator=generator).round() * masks[..., None, None],
    }
    sample = torch.randn(2, 4, 12, 12, generator=generator)
    text = torch.randn(2, 7, 24, generator=generator)
    with torch.no_grad():
        outputs = []
        for model in (unet, again):
            tokens = model.position_net(**grounding, keep=("mask", "box"))
            assert tokens.shape == (2, 184, 24)
            outputs.append(model(sample, 321, text, grounding_tokens=tokens).sample)
    assert torch.equal(*outputs)
    assert outputs[0].std() > 0


@pytest.mark.parametrize("name", SHAPES)
def test_backbone_names_agree_with_those_that_diffusers_converts(name: str) -> None:
    unet, _ = odd_model(name)
    added = ("position_net.", "scaleu")
    published = {
        f"model.diffusion_model.{key}": tensor
        for key, tensor in to_published(unet).items()
        if not key.startswith(added) and ".fuser." not in key
    }
    theirs = single_file_utils.convert_ldm_unet_checkpoint(published, dict(unet.config))
    own = {
        key: tensor
        for key, tensor in unet.state_dict().items()
        if not key.startswith(added) and ".fuser." not in key
    }
    assert set(theirs) == set(own)
    assert all(torch.equal(theirs[key], tensor) for key, tensor in own.items())


def _without(*prefixes: str) -> Callable[[Tensors], dict[str, Any]]:
    return lambda tensors: {name: t for name, t in tensors.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("position_net.", "scaleu_"), "this is a plain Stable Diffusion 1.x checkpoint"),
        (lambda _: gligen_to_original(builders.gligen_unet()), "this is the UNet of GLIGEN alone"),
        (_without("position_net.null_scribble"), "this InstanceDiffusion checkpoint is incomplete"),
        (_without("position_net.pos_embedding"), r"position_net\.pos_embedding: .* is incomplete"),
        (
            _without("position_net.convnext_tiny_backbone.stages.2."),
            r"stages\.2\.0\.gamma: .* is incomplete",
        ),
        (lambda _: {"unet.a.lora_A.weight": torch.zeros(2)}, "this is a LoRA"),
        (lambda tensors: {"model": tensors}, "the UNet of InstanceDiffusion alone; give its part 'model'"),
        (lambda tensors: tensors | {"position_net.null_polygon_feature": torch.tensor(0.0)}, "shapes"),
        (lambda _: {}, "no checkpoint of a known kind"),
    ],
)
def test_another_kind_is_called_what_it_is(
    change: Any, message: str, published_weights: Tensors, published_params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        unet_from_published(change(published_weights), published_params)
    assert "\n" not in str(caught.value)


def test_missing_and_unexpected_tensors_are_named(
    published_weights: Tensors, published_params: dict[str, Any]
) -> None:
    damaged = dict(published_weights)
    del damaged["scaleu_b_3"]
    damaged["lora_up"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"missing: scaleu_b_3; unexpected: lora_up"):
        unet_from_published(damaged, published_params)


def test_wrong_shape_dtype_and_kind_are_named(
    published_weights: Tensors, published_params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"out\.2\.bias \(5,\) \(expected \(4,\)\)"):
        unet_from_published(published_weights | {"out.2.bias": torch.zeros(5)}, published_params)
    with pytest.raises(ValueError, match=r"not floating point: out\.2\.bias"):
        unet_from_published(
            published_weights | {"out.2.bias": torch.zeros(4, dtype=torch.int8)}, published_params
        )
    with pytest.raises(ValueError, match="heads"):
        unet_from_published(published_weights, published_params | {"num_heads": 5})
    with pytest.raises(ValueError, match="'num_heads' is missing"):
        unet_from_published(
            published_weights, {n: v for n, v in published_params.items() if n != "num_heads"}
        )


def test_model_without_scaleu_has_no_published_layout(tiny_config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no ScaleU"):
        to_published(InstanceUNet(**tiny_config, use_scaleu=False))
