from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from reference_model.unet import InstanceUNet

Tensors = dict[str, Tensor]
TOLERANCE = 5e-5
CONFIGS = ("box", "mask", "point", "scribble")


@pytest.mark.parametrize("timestep", [981, 121])
@pytest.mark.parametrize("config", [*CONFIGS, "null"])
def test_prediction_equals_recorded(
    config: str,
    timestep: int,
    golden_unet: InstanceUNet,
    golden_inputs: Tensors,
    golden_tokens: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    context = golden_inputs["uc2" if config == "null" else "context2"]
    eps = golden_unet(golden_inputs["x2"], timestep, context, grounding_tokens=golden_tokens[config]).sample
    assert relative_error(eps, load_arrays("unet")[f"{config}.t{timestep}.eps"]) <= TOLERANCE


@pytest.mark.parametrize("config", CONFIGS)
def test_masked_attention_equals_recorded(
    config: str,
    golden_unet: InstanceUNet,
    golden_inputs: Tensors,
    golden_tokens: Tensors,
    golden_grounding: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    eps = golden_unet(
        golden_inputs["x2"],
        981,
        golden_inputs["context2"],
        grounding_tokens=golden_tokens[config],
        instance_masks=golden_grounding["att_masks"],
        masked_attention="published",
    ).sample
    assert relative_error(eps, load_arrays("unet")[f"{config}.t981.masked_att.eps"]) <= TOLERANCE


@pytest.mark.parametrize("alpha", [0, 0.5])
def test_scaled_grounding_equals_recorded(
    alpha: float,
    golden_unet: InstanceUNet,
    golden_inputs: Tensors,
    golden_tokens: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    args = (golden_inputs["x2"], 121, golden_inputs["context2"])
    recorded = load_arrays("unet")[f"mask.alpha{alpha}.t121.eps"]
    direct = golden_unet(*args, golden_tokens["mask"], alpha).sample
    assert relative_error(direct, recorded) <= TOLERANCE
    ahead = golden_unet.prepare_grounding(golden_tokens["mask"], size=(16, 16), project=True)
    assert relative_error(golden_unet(*args, ahead, alpha).sample, recorded) <= TOLERANCE
    if alpha == 0:
        assert torch.equal(golden_unet(*args).sample, direct)


@pytest.mark.parametrize("alpha", [0, 1])
def test_swapped_first_convolution_equals_recorded(
    alpha: int,
    golden_unet: InstanceUNet,
    golden_inputs: Tensors,
    golden_tokens: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    unet = copy.deepcopy(golden_unet)
    unet.conv_in.load_state_dict(load_arrays("sd_first_conv"))
    eps = unet(golden_inputs["x2"], 121, golden_inputs["context2"], golden_tokens["mask"], alpha).sample
    assert relative_error(eps, load_arrays("unet")[f"mask.alpha{alpha}.sdconv.t121.eps"]) <= TOLERANCE


def test_every_block_equals_recorded(
    golden_unet: InstanceUNet,
    golden_inputs: Tensors,
    golden_tokens: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    """Samples of the output of each block; a mistake shows where it is made."""
    recorded = load_arrays("unet")
    blocks: dict[str, torch.nn.Module] = {
        "time_embed": golden_unet.time_embedding,
        "input_blocks.0": golden_unet.conv_in,
        "middle_block": golden_unet.mid_block,
    }
    for level, block in enumerate(golden_unet.down_blocks):
        for layer, resnet in enumerate(block.resnets):
            last = block.attentions[layer] if hasattr(block, "attentions") else resnet
            blocks[f"input_blocks.{1 + 3 * level + layer}"] = last
        if block.downsamplers:
            blocks[f"input_blocks.{3 * level + 3}"] = block.downsamplers[0]
    for level, block in enumerate(golden_unet.up_blocks):
        for layer, resnet in enumerate(block.resnets):
            last = block.attentions[layer] if hasattr(block, "attentions") else resnet
            if layer == 2 and block.upsamplers:
                last = block.upsamplers[0]
            blocks[f"output_blocks.{3 * level + layer}"] = last
    assert len(blocks) == sum(name.startswith("act.") for name in recorded) - 1 == 26
    seen: Tensors = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, __: Any, output: Any) -> None:
            seen[name] = getattr(output, "sample", output[0] if isinstance(output, tuple) else output)

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in blocks.items()]
    arguments = (golden_inputs["x2"][:1], 121, golden_inputs["context2"][:1], golden_tokens["mask"][:1])
    eps = golden_unet(*arguments).sample
    for handle in hooks:
        handle.remove()
    assert relative_error(eps, recorded["act.eps"]) <= TOLERANCE
    for name in blocks:
        stride = int(recorded[f"stride.{name}"])
        samples = seen[name].flatten()[::stride][:64]
        assert relative_error(samples, recorded[f"act.{name}.strided"]) <= TOLERANCE, name


def call(unet: torch.nn.Module, size: tuple[int, int] = (8, 8), **kwargs: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(2, 4, *size, generator=generator)
    context = torch.randn(2, 6, 32, generator=generator)
    dtype = next(unet.parameters()).dtype
    result: Tensor = unet(sample.to(dtype), torch.tensor([3, 700]), context.to(dtype), **kwargs).sample
    return result


def test_save_and_load_round_trip(
    tmp_path: Path, tiny_config: dict[str, Any], tiny_grounding: Tensors
) -> None:
    extra = {"masked_attention": "correct", "local_mask_radius": {"point": 2.0}, "grounding_keep": ["box"]}
    unet = InstanceUNet(**(tiny_config | extra)).eval()
    unet.save_pretrained(tmp_path)
    again = InstanceUNet.from_pretrained(tmp_path)
    for name, value in (tiny_config | extra).items():
        assert again.config[name] == value, name
    public = {name for name in unet.config if not name.startswith("_")}
    assert {name for name in again.config if not name.startswith("_")} == public
    assert all(torch.equal(a, again.state_dict()[n]) for n, a in unet.state_dict().items())
    tokens = unet.position_net(**tiny_grounding)
    assert torch.equal(call(unet, grounding_tokens=tokens), call(again, grounding_tokens=tokens))


def test_stable_diffusion_folder(
    tmp_path: Path, tiny_config: dict[str, Any], tiny_grounding: Tensors
) -> None:
    names = ("block_out_channels", "down_block_types", "up_block_types", "layers_per_block")
    sizes = {n: tiny_config[n] for n in (*names, "cross_attention_dim", "attention_head_dim")}
    plain = UNet2DConditionModel(sample_size=8, **sizes).eval()
    plain.save_pretrained(tmp_path)
    grounding = {n: v for n, v in tiny_config.items() if n not in sizes and n != "sample_size"}
    unet = InstanceUNet.from_stable_diffusion(tmp_path, **grounding)
    assert unet.config.max_instances == 4
    tokens = unet.position_net(**tiny_grounding)
    assert torch.isfinite(tokens).all()
    # ScaleU and the gates are neutral before training.
    assert torch.allclose(call(unet, grounding_tokens=tokens), call(plain), atol=1e-5)
    with pytest.raises(ValueError, match="from_stable_diffusion"):
        InstanceUNet.from_pretrained(tmp_path, **grounding)


@pytest.mark.parametrize("size", [(6, 6), (5, 9), (7, 12)])
def test_any_latent_size(size: tuple[int, int], tiny_unet: InstanceUNet, tiny_grounding: Tensors) -> None:
    masks = torch.rand(2, 4, *size) > 0.5
    tokens = tiny_unet.position_net(**tiny_grounding)
    out = call(tiny_unet, size, grounding_tokens=tokens, instance_masks=masks, masked_attention="correct")
    assert out.shape == (2, 4, *size)
    assert torch.isfinite(out).all()


def test_correct_masks_keep_instances_apart(tiny_unet: InstanceUNet, tiny_grounding: Tensors) -> None:
    fuser = tiny_unet.down_blocks[1].attentions[0].transformer_blocks[0].fuser
    masks = torch.zeros(2, 4, 8, 8)
    masks[:, 0, :4] = 1  # instance 0 in the upper half, instance 1 in the lower
    masks[:, 1, 4:] = 1
    tokens = tiny_unet.position_net(**tiny_grounding)
    changed = tokens.clone()
    changed[:, [1, 5, 9, 13]] += 1  # all tokens of instance 1
    x = torch.randn(2, 16, 64)
    outputs = [
        fuser(
            x, tiny_unet.prepare_grounding(t, size=(8, 8), instance_masks=masks, masked_attention="correct")
        )
        for t in (tokens, changed)
    ]
    assert torch.equal(outputs[0][:, :8], outputs[1][:, :8])
    assert not torch.allclose(outputs[0][0, 8:], outputs[1][0, 8:], atol=1e-4)


def test_batch_of_prepared_groundings_equals_one_by_one(
    tiny_unet: InstanceUNet, tiny_grounding: Tensors
) -> None:
    masks = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6
    tokens = tiny_unet.position_net(**tiny_grounding)
    ahead = tiny_unet.prepare_grounding(
        tokens, size=(8, 8), instance_masks=masks, masked_attention="correct", project=True
    )
    both = call(tiny_unet, grounding_tokens=ahead)
    direct = call(tiny_unet, grounding_tokens=tokens, instance_masks=masks, masked_attention="correct")
    assert torch.allclose(both, direct, atol=1e-6)
    swapped = call(
        tiny_unet, grounding_tokens=ahead.select(torch.tensor([1, 0])).select(torch.tensor([1, 0]))
    )
    assert torch.allclose(both, swapped, atol=1e-6)


def test_config_decides_the_default_mode(tiny_config: dict[str, Any], tiny_grounding: Tensors) -> None:
    torch.manual_seed(0)
    unet = InstanceUNet(**tiny_config, masked_attention="correct").eval()
    for module in unet.modules():
        if hasattr(module, "alpha_attn"):
            module.alpha_attn.data.fill_(1.0)
    tokens = unet.position_net(**tiny_grounding)
    args = {"grounding_tokens": tokens, "instance_masks": torch.rand(2, 4, 8, 8) > 0.8}
    default = call(unet, **args)
    assert torch.equal(default, call(unet, **args, masked_attention="correct"))
    assert not torch.allclose(default, call(unet, **args, masked_attention="none"), atol=1e-4)


def test_every_parameter_learns(tiny_unet: InstanceUNet, tiny_grounding: Tensors) -> None:
    tiny_unet.train()
    tiny_unet.enable_gradient_checkpointing()
    tokens = tiny_unet.position_net(**tiny_grounding)
    call(tiny_unet, grounding_tokens=tokens).square().mean().backward()
    assert [n for n, p in tiny_unet.named_parameters() if p.grad is None] == []
    grad = tiny_unet.position_net.in_conv.weight.grad
    assert grad is not None
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(
    dtype: torch.dtype,
    tiny_unet: InstanceUNet,
    tiny_grounding: Tensors,
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    exact = call(tiny_unet, grounding_tokens=tiny_unet.position_net(**tiny_grounding))
    half = tiny_unet.to(dtype)
    out = call(half, grounding_tokens=half.position_net(**tiny_grounding))
    assert out.dtype == dtype
    assert relative_error(out.float(), exact) < 0.1


def test_captures_as_one_graph(tiny_unet: InstanceUNet, tiny_grounding: Tensors) -> None:
    tokens = tiny_unet.position_net(**tiny_grounding).detach()
    masks = torch.rand(2, 4, 8, 8) > 0.5
    compiled: Any = torch.compile(tiny_unet, backend="eager", fullgraph=True)
    args = {"grounding_tokens": tokens, "instance_masks": masks, "masked_attention": "correct"}
    with torch.no_grad():
        assert torch.allclose(call(compiled, **args), call(tiny_unet, **args), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type"),
        ({"masked_attention": "sometimes"}, "'sometimes'"),
        ({"grounding_keep": ["segment"]}, "'segment'"),
    ],
)
def test_unsupported_choices_are_named(
    change: dict[str, Any], message: str, tiny_config: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        InstanceUNet(**(tiny_config | change))


def test_unknown_mode_is_named(tiny_unet: InstanceUNet, tiny_grounding: Tensors) -> None:
    tokens = tiny_unet.position_net(**tiny_grounding)
    with pytest.raises(ValueError, match="unknown mode"):
        call(tiny_unet, grounding_tokens=tokens, masked_attention="wrong")
