"""A checkpoint of the wrong kind is called what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reference_model.checkpoints.detect import CheckpointKind, identify, require_published, tensors_of
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor


def tensors(*names: str, shape: tuple[int, ...] = (4, 4), **shapes: tuple[int, ...]) -> dict[str, LazyTensor]:
    def lazy(size: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(size, torch.float32, lambda: torch.zeros(size))

    return {name: lazy(shapes.get(name, shape)) for name in names}


UNET = ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.bias")
CROSS = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
UNIFUSION = ("position_net.null_polygon_feature", "position_net.linears_list.0.0.weight", "scaleu_b_0")
GLIGEN = (
    "position_net.linears.0.weight",
    "position_net.null_positive_feature",
    "position_net.null_position_feature",
)
OTHERS = {
    "autoencoder": tensors("encoder.conv_in.weight"),
    "text_encoder": tensors("transformer.text_model.x"),
}


def cases() -> list[tuple[str, dict[str, Any], CheckpointKind]]:
    instance, gligen = tensors(*UNET, *UNIFUSION), tensors(*UNET, *GLIGEN)
    ldm = {
        f"model.diffusion_model.{name}": value
        for name, value in tensors(*UNET, CROSS, shape=(320, 768)).items()
    }
    wide = {f"model.diffusion_model.{CROSS}": tensors(CROSS, shape=(320, 1024))[CROSS], **ldm}
    down, kind = "down_blocks.0.resnets.0.conv1.weight", CheckpointKind
    inpainting = {**gligen, **tensors(UNET[0], shape=(320, 9, 3, 3))}
    return [
        ("whole", {"model": instance, **OTHERS}, kind.INSTANCE_DIFFUSION),
        ("whole, averaged weights only", {"ema": instance, **OTHERS}, kind.INSTANCE_DIFFUSION),
        ("UNet in a dict", {"model": instance, "opt": {}}, kind.INSTANCE_DIFFUSION_UNET),
        ("UNet", instance, kind.INSTANCE_DIFFUSION_UNET),
        ("GLIGEN", {"model": {**gligen, **tensors(UNET[0], shape=(320, 4, 3, 3))}, **OTHERS}, kind.GLIGEN),
        ("GLIGEN's UNet", {**gligen, **tensors(UNET[0], shape=(320, 4, 3, 3))}, kind.GLIGEN_UNET),
        ("GLIGEN, inpainting", {"model": inpainting, **OTHERS}, kind.GLIGEN_OTHER),
        (
            "GLIGEN, images",
            {"model": tensors(*UNET, "position_net.linears_text.0.weight"), **OTHERS},
            kind.GLIGEN_OTHER,
        ),
        (
            "GLIGEN, maps",
            {"model": tensors(*UNET, "downsample_net.layers.0.weight"), **OTHERS},
            kind.GLIGEN_OTHER,
        ),
        ("SD 1", {"state_dict": ldm, "global_step": 3}, kind.STABLE_DIFFUSION_1),
        ("SD 1, flat", ldm, kind.STABLE_DIFFUSION_1),
        (
            "SD 2",
            {"state_dict": {f"model.diffusion_model.{CROSS}": wide[f"model.diffusion_model.{CROSS}"]}},
            None,
        ),
        ("SD XL", tensors(*UNET, CROSS, shape=(640, 2048)), kind.STABLE_DIFFUSION_XL),
        ("diffusers", tensors("conv_in.weight", down), kind.DIFFUSERS_UNET),
        ("diffusers, ours", tensors("conv_in.weight", down, UNIFUSION[0]), kind.DIFFUSERS_INSTANCE_UNET),
        ("diffusers, GLIGEN", tensors("conv_in.weight", down, *GLIGEN), kind.DIFFUSERS_GLIGEN_UNET),
        ("LoRA", tensors("unet.down_blocks.0.lora_A.weight", "unet.down_blocks.0.lora_B.weight"), kind.LORA),
        (
            "LoRA, kohya",
            tensors("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight", "lora_unet_x.alpha"),
            kind.LORA,
        ),
        ("ControlNet", tensors("controlnet_cond_embedding.conv_in.weight", down), kind.CONTROLNET),
        ("autoencoder", tensors("encoder.conv_in.weight", "decoder.conv_in.weight"), kind.AUTOENCODER),
        ("text encoder", tensors("text_model.embeddings.token_embedding.weight"), kind.TEXT_ENCODER),
        ("first convolution", tensors("weight", "bias"), kind.FIRST_CONVOLUTION),
        ("nothing known", {"fc1.weight": 1}, kind.UNKNOWN),
        ("nothing", {}, kind.UNKNOWN),
    ]


CASES = [(name, content, kind) for name, content, kind in cases() if kind is not None]


@pytest.mark.parametrize(("name", "content", "kind"), CASES, ids=[name for name, _, _ in CASES])
def test_kinds(name: str, content: dict[str, Any], kind: CheckpointKind) -> None:
    assert identify(content) is kind
    if kind in (CheckpointKind.INSTANCE_DIFFUSION, CheckpointKind.GLIGEN):
        assert require_published(content) is kind
    else:
        with pytest.raises(CheckpointError, match=kind.value.replace("(", r"\(").replace(")", r"\)")):
            require_published(content)


def test_wide_text_embeddings_are_stable_diffusion_2() -> None:
    assert identify(tensors(*UNET, CROSS, shape=(320, 1024))) is CheckpointKind.STABLE_DIFFUSION_2


def test_the_kind_asked_for_must_be_the_kind_found() -> None:
    content = {"model": tensors(*UNET, *UNIFUSION), **OTHERS}
    assert require_published(content, "instancediffusion") is CheckpointKind.INSTANCE_DIFFUSION
    with pytest.raises(CheckpointError, match="this is an InstanceDiffusion checkpoint, not a GLIGEN"):
        require_published(content, "gligen")
    with pytest.raises(CheckpointError, match="format: 'sdxl' is unknown"):
        require_published(content, "sdxl")
    with pytest.raises(CheckpointError, match=r"names such as fc1\.weight"):
        require_published({"fc1.weight": 1})


def test_parts_hold_tensors_only() -> None:
    assert set(tensors_of({"model": tensors("a", "b")}, "model")) == {"a", "b"}
    for content, message in (
        ({}, "model is missing"),
        ({"model": {}}, "model is missing"),
        ({"model": 3}, "model is missing"),
        ({"model": {"a": 1}}, r"model\.a is not a tensor"),
    ):
        with pytest.raises(CheckpointError, match=message):
            tensors_of(content, "model")
