"""Whole published checkpoints: from the parts in one file to the components of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from reference_model.checkpoints.autoencoder import autoencoder_from_published
from reference_model.checkpoints.config import plain_config
from reference_model.checkpoints.detect import CheckpointKind, identify, require_published, tensors_of
from reference_model.checkpoints.gligen import gligen_from_original
from reference_model.checkpoints.published import unet_from_published
from reference_model.checkpoints.restricted import CONFIG_KEY, open_checkpoint
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, listing, materialise
from reference_model.checkpoints.text_encoder import text_encoder_from_published, text_weights

__all__ = ["Components", "Weights", "assemble_published", "read_first_convolution"]

Weights = Literal["auto", "ema", "model"]

_READ: Final = ("model", "ema", "autoencoder", "text_encoder", "diffusion", CONFIG_KEY)
_LEFT_OUT: Final = ("opt", "scheduler", "iters")  # state of the training
_SCHEDULE_TABLES: Final = frozenset(
    {
        *(
            "betas",
            "alphas_cumprod",
            "alphas_cumprod_prev",
            "sqrt_alphas_cumprod",
            "log_one_minus_alphas_cumprod",
        ),
        *("sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *(
            "posterior_variance",
            "posterior_log_variance_clipped",
            "posterior_mean_coef1",
            "posterior_mean_coef2",
        ),
        *("lvlb_weights", "logvar"),
    }
)
_MAX_TIMESTEPS = 100_000
_BETA_TOLERANCE = 1e-4  # relative; float16 tables are coarser than the rule


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a pipeline.

    Attributes:
        kind: `INSTANCE_DIFFUSION` or `GLIGEN`.
        unet: The denoiser.
        vae: The autoencoder.
        text_encoder: The text encoder.
        tokenizer: Its tokenizer.
        scheduler: The noise schedule.
        weights: Which of the checkpoint's weights the UNet has, ``"ema"`` or ``"model"``.
        left_out: Parts of the file that a pipeline does not need (state of the training).
    """

    kind: CheckpointKind
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: PNDMScheduler
    weights: str
    left_out: tuple[str, ...]


def assemble_published(
    content: Mapping[str, Any],
    tokenizer: CLIPTokenizer,
    *,
    config: Mapping[str, Any] | None = None,
    wanted: str = "auto",
    weights: Weights = "auto",
    dtype: torch.dtype = torch.float32,
    text_heads: int | None = None,
) -> Components:
    """Builds the components of a whole checkpoint in the published layout.

    Args:
        content: What `open_checkpoint` yields.
        tokenizer: The tokenizer; published files have none.
        config: A published configuration in place of the one in the file.
        wanted: ``"instancediffusion"``, ``"gligen"``, or ``"auto"``.
        weights: ``"ema"``, ``"model"``, or ``"auto"``: the averaged weights if there are any, as published.
        dtype: Precision that the weights are rounded to. The UNet comes out as float32 all the same.
        text_heads: Heads of the text encoder; None takes CLIP's one per 64 channels.

    Returns:
        The components, on the CPU, in eval mode.

    Raises:
        CheckpointError: If the checkpoint is of another kind, a part or tensor is missing, unexpected, of the wrong
            shape or dtype, or not finite; the message names it.
    """
    kind = require_published(content, wanted)
    unknown = set(content) - set(_READ) - set(_LEFT_OUT)
    if unknown:
        raise CheckpointError(f"unexpected parts: {listing(unknown)}; give a checkpoint as published")
    missing = {name for name in ("autoencoder", "text_encoder", "diffusion") if name not in content}
    if missing:
        raise CheckpointError(f"missing parts: {listing(missing)}; give the whole checkpoint")
    if config is None:
        if CONFIG_KEY not in content:
            raise CheckpointError(f"{CONFIG_KEY} is missing; give the published YAML with --config FILE.yaml")
        config = plain_config(content[CONFIG_KEY])
    source, tensors = _chosen_weights(content, weights)
    try:
        unet = _unet(kind, materialise(tensors, source, dtype), _params(config, "model"))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    scheduler = _scheduler(tensors_of(content, "diffusion"), _params(config, "diffusion"))
    vae = autoencoder_from_published(
        materialise(tensors_of(content, "autoencoder"), "autoencoder", dtype), _params(config, "autoencoder")
    )
    text = text_weights(tensors_of(content, "text_encoder"))
    encoder = text_encoder_from_published(
        materialise(text, "text_encoder", dtype), tokenizer, heads=text_heads
    )
    width = encoder.config.hidden_size
    if width != unet.config.cross_attention_dim:
        raise CheckpointError(
            f"text_encoder: gives {width} channels, but the UNet takes {unet.config.cross_attention_dim}; "
            "the parts do not belong together"
        )
    left = tuple(name for name in content if name in _LEFT_OUT)
    return Components(kind, unet, vae, encoder, tokenizer, scheduler, source, left)


def _chosen_weights(content: Mapping[str, Any], weights: str) -> tuple[str, dict[str, LazyTensor]]:
    """Name and tensors of the UNet's weights."""
    if weights not in ("auto", "ema", "model"):
        raise CheckpointError(f"weights: {weights!r} is unknown; choose from auto, ema, model")
    source = weights
    if weights == "auto":
        source = "ema" if content.get("ema") else "model"
    tensors = tensors_of(content, source)
    if source == "ema" and isinstance(content.get("model"), Mapping):
        differing = set(tensors) ^ set(content["model"])
        if differing:
            raise CheckpointError(
                f"ema and model do not have the same tensors: {listing(map(str, differing))}; "
                "choose one with --weights ema or --weights model"
            )
    return source, tensors


def _unet(
    kind: CheckpointKind, state: Mapping[str, Tensor], params: Mapping[str, Any]
) -> UNet2DConditionModel:
    if kind is CheckpointKind.GLIGEN:
        return gligen_from_original(state, params, copy=False)
    return unet_from_published(state, params, copy=False)


def _params(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    entry = config.get(part)
    params = entry.get("params") if isinstance(entry, Mapping) else None
    if not isinstance(params, Mapping):
        raise CheckpointError(
            f"{part}.params is missing in the configuration; give the published YAML with --config FILE.yaml"
        )
    return params


def _scheduler(tables: Mapping[str, LazyTensor], params: Mapping[str, Any]) -> PNDMScheduler:
    """The noise schedule of the configuration, compared with the tables in the file."""
    unexpected = set(tables) - _SCHEDULE_TABLES
    if unexpected or "betas" not in tables:
        what = f"unexpected: {listing(unexpected)}" if unexpected else "missing: betas"
        raise CheckpointError(f"diffusion: {what}; give a checkpoint as published")
    try:
        start, end = float(params.get("linear_start", 1e-4)), float(params.get("linear_end", 2e-2))
        steps, rule = int(params.get("timesteps", 1000)), params.get("beta_schedule", "linear")
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"diffusion.params of the configuration: {error}") from None
    if rule != "linear" or not 0 < start <= end < 1 or not 1 <= steps <= _MAX_TIMESTEPS:
        raise CheckpointError("diffusion.params of the configuration: not the schedule of Stable Diffusion")
    # Called linear in the published code, but linear in the square root.
    expected = torch.from_numpy(np.linspace(start**0.5, end**0.5, steps, dtype=np.float64) ** 2)
    betas = materialise({"betas": tables["betas"]}, "diffusion", torch.float64)["betas"]
    if betas.shape != expected.shape or not torch.allclose(betas, expected, rtol=_BETA_TOLERANCE, atol=1e-7):
        raise CheckpointError(
            "diffusion.betas: are not those of the configuration; give the matching --config FILE.yaml"
        )
    return PNDMScheduler(
        num_train_timesteps=steps,
        beta_start=start,
        beta_end=end,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def read_first_convolution(path: Path) -> dict[str, Tensor]:
    """Reads the first convolution of Stable Diffusion from its published file (``weight`` and ``bias``).

    The published sampler puts it into the UNet where the grounding is off; pass the result as `first_conv` to the
    pipeline.

    Args:
        path: The `.pth` or `.safetensors` file.

    Returns:
        The two tensors, float32.

    Raises:
        CheckpointError: If the file holds something else or cannot be read.
    """
    with open_checkpoint(path) as content:
        kind = identify(content)
        if kind is not CheckpointKind.FIRST_CONVOLUTION:
            raise CheckpointError(f"this is {kind.value}, not {CheckpointKind.FIRST_CONVOLUTION.value}")
        return materialise(tensors_of({"convolution": content}, "convolution"), "convolution")
