"""A complete pipeline with random weights that samples in milliseconds, for tests."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from reference_model.pipeline import InstanceDiffusionPipeline
from reference_model.unet import InstanceUNet

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 24


def tiny_tokenizer(max_length: int = LENGTH) -> CLIPTokenizer:
    """One token per letter, digit or punctuation mark, inside and at the end of a word."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
    names = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocab = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=max_length)


def tiny_unet(**changes: Any) -> InstanceUNet:
    """A UNet of two levels with open gates."""
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
        "max_instances": 4,
        "num_scribble_points": 5,
        "num_mask_points": 8,
        "num_fourier_freqs": 4,
        "grounding_mid_dim": 16,
        "segment_size": 64,
        "convnext_depths": (1, 1, 1, 1),
        "convnext_widths": (4, 4, 4, 4),
        "masked_attention": "correct",
        "local_mask_radius": {"point": 0.15, "scribble": 0.08},
    }
    torch.manual_seed(0)
    unet = InstanceUNet(**{**settings, **changes})
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            # The nulls, gates and ScaleU start at zero, which would hide mistakes.
            if parameter.abs().sum() == 0 and not name.endswith("bias"):
                parameter.normal_(std=0.5)
    return unet.eval()


def tiny_pipeline(
    scheduler: SchedulerMixin | None = None,
    sampling_defaults: dict[str, Any] | None = None,
    **unet_changes: Any,
) -> InstanceDiffusionPipeline:
    """All five components; 16x16 pixels, 8x8 latents, four steps by default."""
    unet = tiny_unet(**unet_changes)
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    tokenizer = tiny_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    if scheduler is None:
        scheduler = PNDMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", skip_prk_steps=True
        )
    if sampling_defaults is None:
        sampling_defaults = {"num_inference_steps": 4, "guidance_scale": 3.0, "alpha": 1.0, "mis": 0.0}
    pipeline = InstanceDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        sampling_defaults=sampling_defaults,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_foreign_pipeline(*, gligen: bool = True, attention_type: str | None = None) -> Any:
    """Diffusers' own pipeline with random weights: GLIGEN's for boxes and text, or plain Stable Diffusion."""
    from diffusers import StableDiffusionGLIGENPipeline, StableDiffusionPipeline, UNet2DConditionModel

    # Diffusers' own steps: PNDM would stand for the published PLMS, which begins differently.
    parts = tiny_pipeline(DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False))
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        attention_type=attention_type or ("gated" if gligen else "default"),
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.abs().sum() == 0 and not name.endswith("bias"):
                parameter.normal_(std=0.5)
    kind = StableDiffusionGLIGENPipeline if gligen else StableDiffusionPipeline
    pipeline = kind(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet.eval(),
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
