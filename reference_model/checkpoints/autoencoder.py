"""The autoencoder of published checkpoints: names, sizes, and the way there and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from reference_model.checkpoints.tensors import CheckpointError, listing

__all__ = ["autoencoder_from_published", "autoencoder_params", "autoencoder_to_published"]

_ATTENTION: Final = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_MAX_LEVELS = 16


def _published_name(name: str, levels: int) -> str:
    """Published name of a parameter of diffusers' `AutoencoderKL`."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.resnets\.(\d+)\.(.+)", name):
        return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}"
    if match := re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        return f"{match[1]}.mid.attn_1.{_ATTENTION[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"encoder\.down_blocks\.(\d+)\.(resnets\.(\d+)|downsamplers\.0)\.(.+)", name):
        where = "downsample" if match[3] is None else f"block.{match[3]}"
        return f"encoder.down.{match[1]}.{where}.{match[4]}"
    if match := re.fullmatch(r"decoder\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)\.(.+)", name):
        # The published decoder numbers its levels from the finest.
        where = "upsample" if match[3] is None else f"block.{match[3]}"
        return f"decoder.up.{levels - 1 - int(match[1])}.{where}.{match[4]}"
    return name


def _name_map(model: AutoencoderKL) -> dict[str, str]:
    levels = len(model.config.block_out_channels)
    return {name: _published_name(name, levels) for name in model.state_dict()}


def _is_projection(name: str) -> bool:
    """Whether a published tensor is a 1x1 convolution that diffusers holds as a linear layer."""
    return re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$", name) is not None


def _config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AutoencoderKL` for `autoencoder.params` of a published YAML."""
    try:
        sizes = params["ddconfig"]
        channels = [int(sizes["ch"]) * int(factor) for factor in sizes["ch_mult"]]
        layers, latents = int(sizes["num_res_blocks"]), int(sizes["z_channels"])
        double, attention = bool(sizes["double_z"]), list(sizes.get("attn_resolutions") or ())
        inside, outside = int(sizes["in_channels"]), int(sizes["out_ch"])
        side, scale = int(sizes["resolution"]), float(params.get("scale_factor", 1.0))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"autoencoder.params of the configuration: {error} is missing or invalid; give --config FILE.yaml"
        ) from None
    if not double or attention or int(params.get("embed_dim", latents)) != latents:
        raise CheckpointError(
            "autoencoder.params of the configuration: only double_z, no attn_resolutions and embed_dim = z_channels "
            "are supported, as in Stable Diffusion"
        )
    if not 1 <= len(channels) <= _MAX_LEVELS or not 1 <= layers <= _MAX_LEVELS:
        raise CheckpointError(
            f"autoencoder.params of the configuration: more than {_MAX_LEVELS} levels or layers"
        )
    return {
        "in_channels": inside,
        "out_channels": outside,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": latents,
        "sample_size": side,
        "scaling_factor": scale,
    }


def autoencoder_from_published(state_dict: Mapping[str, Tensor], params: Mapping[str, Any]) -> AutoencoderKL:
    """Builds the autoencoder of a published checkpoint.

    Args:
        state_dict: `checkpoint["autoencoder"]`; tensors may be shared with the result.
        params: `autoencoder.params` of the published YAML.

    Returns:
        The autoencoder, in eval mode, with the dtype of the tensors.

    Raises:
        CheckpointError: If tensors are missing, unexpected or of the wrong shape; all are named.
    """
    with torch.device("meta"):
        model = AutoencoderKL(**_config(params))
    names = _name_map(model)
    missing, unexpected = set(names.values()) - set(state_dict), set(state_dict) - set(names.values())
    if missing or unexpected:
        parts = [
            f"{what}: {listing(keys)}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise CheckpointError(f"autoencoder: does not fit the configuration; {'; '.join(parts)}")
    own, tensors, wrong = model.state_dict(), {}, set()
    for ours, theirs in names.items():
        tensor = state_dict[theirs]
        if _is_projection(theirs) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]
        if tensor.shape != own[ours].shape:
            wrong.add(f"{theirs} {tuple(tensor.shape)}")
        tensors[ours] = tensor
    if wrong:
        raise CheckpointError(f"autoencoder: wrong shape: {listing(wrong)}")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def autoencoder_to_published(model: AutoencoderKL) -> dict[str, Tensor]:
    """The tensors of an autoencoder under their published names; the inverse of `autoencoder_from_published`."""
    tensors = model.state_dict()
    return {
        theirs: tensors[ours].detach()[:, :, None, None] if _is_projection(theirs) else tensors[ours].detach()
        for ours, theirs in _name_map(model).items()
    }


def autoencoder_params(model: AutoencoderKL) -> dict[str, Any]:
    """`autoencoder.params` of the published YAML for a model."""
    config = model.config
    base = config.block_out_channels[0]
    return {
        "scale_factor": config.scaling_factor,
        "embed_dim": config.latent_channels,
        "ddconfig": {
            "double_z": True,
            "z_channels": config.latent_channels,
            "resolution": config.sample_size,
            "in_channels": config.in_channels,
            "out_ch": config.out_channels,
            "ch": base,
            "ch_mult": [width // base for width in config.block_out_channels],
            "num_res_blocks": config.layers_per_block,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }
