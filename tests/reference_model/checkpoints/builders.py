"""Checkpoint files in the published layouts, made of random weights."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from omegaconf import OmegaConf
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from reference_model.checkpoints.autoencoder import autoencoder_params, autoencoder_to_published
from reference_model.checkpoints.gligen import gligen_to_original
from reference_model.checkpoints.published import to_published
from reference_model.unet import InstanceUNet
from tests.reference_model.tiny import LENGTH, tiny_tokenizer

CONTEXT = 32


def autoencoder() -> AutoencoderKL:
    """Two levels: 2 pixels per latent cell."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.18215,
    ).eval()


def text_encoder() -> CLIPTextModel:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=CONTEXT,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def published_text(model: CLIPTextModel) -> dict[str, Tensor]:
    """As `FrozenCLIPEmbedder.state_dict` with a transformers of 2023: an inner `text_model`, stored positions."""
    state = {
        f"transformer.text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    state["transformer.text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    return state


def diffusion_tables() -> dict[str, Tensor]:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    alphas = np.cumprod(1 - betas)
    return {
        "betas": torch.tensor(betas, dtype=torch.float32),
        "alphas_cumprod": torch.tensor(alphas, dtype=torch.float32),
    }


def config(params: dict[str, Any]) -> dict[str, Any]:
    """The published training YAML at small sizes, with the arguments of the training script."""
    return {
        "diffusion": {"params": {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}},
        "model": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": params},
        "autoencoder": {"params": autoencoder_params(autoencoder())},
        "text_encoder": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"},
        "base_learning_rate": 5e-5,
        "distributed": True,
        "ckpt": None,
        "name": "run",
    }


def whole(model: dict[str, Tensor], params: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The dict that the published training script saves; `changes` replace parts, None removes them."""
    saved = OmegaConf.create(config(params))
    content: dict[str, Any] = {
        "model": OrderedDict(model),
        "text_encoder": published_text(text_encoder()),
        "autoencoder": autoencoder_to_published(autoencoder()),
        "opt": {
            "state": {0: {"step": 3, "exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 5e-5, "params": [0]}],
        },
        "scheduler": {"last_epoch": 3, "lr_lambdas": [None], "base_lrs": [5e-5]},
        "iters": 4,
        "config_dict": vars(saved),
        "diffusion": diffusion_tables(),
    }
    content |= changes
    return {name: value for name, value in content.items() if value is not None}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def save_tokenizer(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


GLIGEN_PARAMS: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 4,
    "context_dim": CONTEXT,
    "fuser_type": "gatedSA",
}


def gligen_unet() -> UNet2DConditionModel:
    """GLIGEN at small size; gates and nulls are not zero, so that a mistake shows."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=4,
        attention_type="gated",
    )
    for name, parameter in unet.named_parameters():
        if "alpha_" in name or "null_" in name:
            torch.nn.init.normal_(parameter)
    return unet.eval()


def gligen_whole(**changes: Any) -> dict[str, Any]:
    return whole(gligen_to_original(gligen_unet()), GLIGEN_PARAMS, **changes)


INSTANCE_PARAMS: dict[str, Any] = {**GLIGEN_PARAMS, "attention_resolutions": [2]}


def instance_unet() -> InstanceUNet:
    """InstanceDiffusion at a size that draws in milliseconds."""
    torch.manual_seed(4)
    return InstanceUNet(
        sample_size=16,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=4,
        max_instances=4,
        segment_size=64,
        convnext_depths=(1, 1, 1, 1),
        convnext_widths=(8, 8, 8, 8),
        grounding_mid_dim=32,
    ).eval()


def instance_whole(**changes: Any) -> dict[str, Any]:
    return whole(to_published(instance_unet()), INSTANCE_PARAMS, **changes)
