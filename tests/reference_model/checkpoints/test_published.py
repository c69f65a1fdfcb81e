from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.checkpoints import to_published, unet_config, unet_from_published
from reference_model.checkpoints.published import name_map
from reference_model.unet import InstanceUNet

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
    plain = {n: t for n, t in published_weights.items() if not n.startswith("position_net.")}
    with pytest.raises(ValueError, match="not an InstanceDiffusion checkpoint"):
        unet_from_published(plain, published_params)
    with pytest.raises(ValueError, match="'num_heads' is missing"):
        unet_from_published(
            published_weights, {n: v for n, v in published_params.items() if n != "num_heads"}
        )


def test_model_without_scaleu_has_no_published_layout(tiny_config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no ScaleU"):
        to_published(InstanceUNet(**tiny_config, use_scaleu=False))
