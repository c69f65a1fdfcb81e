"""The published checkpoint layout: names of its tensors, and the way there and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor

from reference_model.checkpoints.detect import CheckpointKind, identify
from reference_model.checkpoints.tensors import listing
from reference_model.unet import InstanceUNet

__all__ = [
    "assign_published",
    "backbone_config",
    "name_map",
    "to_published",
    "unet_config",
    "unet_from_published",
]

_MAX_LEVELS = 16  # more would be a broken or hostile configuration
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _resnet(prefix: str, rest: str) -> str:
    module, parameter = rest.rsplit(".", 1)
    return f"{prefix}.{_RESNET[module]}.{parameter}"


def _published_name(name: str, layers: int) -> str:
    """Published name of a parameter of `InstanceUNet` (`layers` = ResNet layers per level)."""
    if name.startswith("position_net."):
        return name
    if match := re.fullmatch(r"scaleu\.(\d+)\.([bs])", name):
        return f"scaleu_{match[2]}_{match[1]}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)", name):
        level, kind, index, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.{rest.replace('conv.', 'op.')}"
        prefix = f"input_blocks.{1 + level * (layers + 1) + index}"
        return _resnet(f"{prefix}.0", rest) if kind == "resnets" else f"{prefix}.1.{rest}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        if match[1] == "attentions":
            return f"middle_block.1.{match[3]}"
        return _resnet(f"middle_block.{2 * int(match[2])}", match[3])
    if match := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        prefix = f"output_blocks.{int(match[1]) * (layers + 1) + int(match[3])}"
        return _resnet(f"{prefix}.0", match[4]) if match[2] == "resnets" else f"{prefix}.1.{match[4]}"
    module, parameter = name.rsplit(".", 1)
    return f"{_TOP[module]}.{parameter}"


def name_map(unet: UNet2DConditionModel) -> dict[str, str]:
    """Names of all tensors of a model: ours to published, one to one.

    Args:
        unet: An `InstanceUNet` whose text, phrase and token sizes agree and that has ScaleU, or any other SD1.x UNet
            of diffusers.

    Returns:
        `{our name: published name}` in the order of `state_dict`.
    """
    layers = unet.config.layers_per_block
    names = {}
    for name in unet.state_dict():
        if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.(.+)", name):
            level = int(match[1])
            slot = 2 if hasattr(unet.up_blocks[level], "attentions") else 1
            names[name] = f"output_blocks.{(level + 1) * (layers + 1) - 1}.{slot}.{match[2]}"
        else:
            names[name] = _published_name(name, layers)
    return names


def _grounding_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    tokenizer = params.get("grounding_tokenizer") or {}
    inner = tokenizer.get("params", tokenizer)
    return inner if isinstance(inner, Mapping) else {}


def _convnext_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """ConvNeXt sizes, read from the names and shapes of the tensors."""
    prefix = "position_net.convnext_tiny_backbone."
    depths = [0, 0, 0, 0]
    widths = [0, 0, 0, 0]
    for name, tensor in state_dict.items():
        if match := re.fullmatch(re.escape(prefix) + r"stages\.(\d)\.(\d+)\.gamma", name):
            stage = int(match[1])
            depths[stage] = max(depths[stage], int(match[2]) + 1)
            widths[stage] = tensor.shape[0]
    if not any(depths):
        return {"convnext_depths": None, "convnext_widths": None}
    if not all(depths):
        raise KeyError(f"{prefix}stages.{depths.index(0)}.0.gamma")
    tokens = state_dict["position_net.pos_embedding"].shape[1]
    return {
        "convnext_depths": depths,
        "convnext_widths": widths,
        "segment_size": 64 * round(tokens**0.5),
        "max_instances": state_dict["position_net.in_conv.weight"].shape[1],
    }


def backbone_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a diffusers UNet that the published YAML decides alone; see `unet_config`."""
    try:
        base, mult = int(params["model_channels"]), [int(m) for m in params["channel_mult"]]
        layers, resolutions = int(params["num_res_blocks"]), list(params["attention_resolutions"])
        context_dim, heads = int(params["context_dim"]), int(params["num_heads"])
        depth = int(params.get("transformer_depth") or 1)
    except KeyError as error:
        raise ValueError(f"params: {error.args[0]!r} is missing; give the model.params of the YAML") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"params: not the model.params of a published YAML ({error})") from None
    if not all(1 <= count <= _MAX_LEVELS for count in (len(mult), layers, depth)):
        raise ValueError(
            f"params: {len(mult)} levels of {layers} layers with {depth} transformer blocks; "
            f"1 to {_MAX_LEVELS} of each"
        )
    if odd := [base * m for m in mult if heads < 1 or base * m % heads]:
        raise ValueError(f"params: {odd[0]} channels cannot be split between {heads} heads")
    attends = [2**level in resolutions for level in range(len(mult))]
    return {
        "sample_size": params.get("image_size"),
        "in_channels": int(params.get("in_channels", 4)),
        "out_channels": int(params.get("out_channels", 4)),
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "block_out_channels": [base * m for m in mult],
        "layers_per_block": layers,
        "transformer_layers_per_block": depth,
        "cross_attention_dim": context_dim,
        "attention_head_dim": heads,
    }


def unet_config(state_dict: Mapping[str, Tensor], params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `InstanceUNet` for a checkpoint in the published layout.

    Args:
        state_dict: The tensors; sizes that the YAML does not name are read from their shapes.
        params: The `model.params` of the published YAML: `image_size`, `in_channels`, `out_channels`,
            `model_channels`, `channel_mult`, `num_res_blocks`, `attention_resolutions`, `num_heads`,
            `context_dim`, `transformer_depth` (1), `grounding_tokenizer.params` (`in_dim`, `out_dim`, `mid_dim`,
            `test_drop_*`).

    Returns:
        Keyword arguments of `InstanceUNet`.

    Raises:
        ValueError: If a name of `params` or a tensor that decides a size is missing.
    """
    backbone = backbone_config(params)
    try:
        # Four coordinates, a sine and a cosine per frequency.
        freqs = max(1, state_dict["position_net.null_position_feature"].shape[0] // 8)
        scribble = state_dict["position_net.null_scribble_feature"].shape[0]
        polygon = state_dict["position_net.null_polygon_feature"].shape[0]
        first = state_dict["position_net.linears_list.0.2.weight"]
        token_dim = state_dict["position_net.linears_list.0.4.weight"].shape[0]
        phrase_dim = state_dict["position_net.null_positive_feature"].shape[0]
        convnext = _convnext_config(state_dict)
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: tensor missing; {_what_it_is(state_dict)}") from None
    except (IndexError, AttributeError):
        raise ValueError(f"tensors without the shapes of published ones; {_what_it_is(state_dict)}") from None
    return {
        **backbone,
        "grounding_in_dim": phrase_dim,
        "grounding_out_dim": token_dim,
        "grounding_mid_dim": first.shape[0],
        "num_fourier_freqs": freqs,
        "num_scribble_points": scribble // (4 * freqs),
        "num_mask_points": polygon // (4 * freqs),
        "grounding_keep": _kept(_grounding_params(params)),
        **convnext,
    }


def _what_it_is(state_dict: Mapping[str, Any]) -> str:
    kind = identify(state_dict)
    if isinstance(state_dict.get("model"), Mapping):
        return f"this is {kind.value}; give its part 'model'"
    if kind is CheckpointKind.INSTANCE_DIFFUSION_UNET:
        return "this InstanceDiffusion checkpoint is incomplete"
    return f"this is {kind.value}, not InstanceDiffusion's UNet"


def _kept(grounding: Mapping[str, Any]) -> list[str]:
    """Formats that a published test configuration keeps (its defaults drop scribbles alone)."""
    dropped = {
        "box": grounding.get("test_drop_boxes", False),
        "point": grounding.get("test_drop_points", False),
        "scribble": grounding.get("test_drop_scribbles", True),
        "mask": grounding.get("test_drop_masks", False),
    }
    return [name for name, drop in dropped.items() if not drop]


def assign_published(
    unet: UNet2DConditionModel, state_dict: Mapping[str, Tensor], *, copy: bool = True
) -> None:
    """Puts tensors with published names into a model that was built without memory.

    Args:
        unet: The model, on the meta device.
        state_dict: Published names to tensors.
        copy: Copy the tensors; else float32 ones are shared.

    Raises:
        ValueError: If tensors are missing, unexpected, of the wrong shape or not floating point; all are named.
    """
    names = name_map(unet)
    missing = set(names.values()) - set(state_dict)
    unexpected = set(state_dict) - set(names.values())
    if missing or unexpected:
        parts = [
            f"{what}: {listing(keys)}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise ValueError(f"checkpoint does not fit params; {'; '.join(parts)}")
    own = unet.state_dict()
    wrong = {
        f"{theirs} {tuple(state_dict[theirs].shape)} (expected {tuple(own[ours].shape)})"
        for ours, theirs in names.items()
        if state_dict[theirs].shape != own[ours].shape
    }
    if wrong:
        raise ValueError(f"checkpoint does not fit params; wrong shape: {listing(wrong)}")
    whole = {theirs for theirs in names.values() if not state_dict[theirs].is_floating_point()}
    if whole:
        raise ValueError(f"checkpoint holds tensors that are not floating point: {listing(whole)}")
    tensors = {ours: state_dict[theirs].to(torch.float32, copy=copy) for ours, theirs in names.items()}
    unet.load_state_dict(tensors, assign=True)


def unet_from_published(
    state_dict: Mapping[str, Tensor | NDArray[Any]], params: Mapping[str, Any], *, copy: bool = True
) -> InstanceUNet:
    """Builds the model of a checkpoint in the published layout.

    Args:
        state_dict: `checkpoint["model"]`: published names to tensors or arrays (any floating dtype).
        params: See `unet_config`.
        copy: Copy the tensors; else float32 ones are shared, which halves the memory needed.

    Returns:
        The model, float32, in eval mode, on the CPU.

    Raises:
        ValueError: If tensors are missing, unexpected or of the wrong shape; all are named.
    """
    tensors = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in state_dict.items()
    }
    # Built without memory: a random initialisation would only be thrown away.
    with torch.device("meta"):
        unet = InstanceUNet(**unet_config(tensors, params))
    assign_published(unet, tensors, copy=copy)
    return unet.eval()


def to_published(unet: InstanceUNet) -> dict[str, Tensor]:
    """The tensors of a model under their published names; the exact inverse of `unet_from_published`.

    Args:
        unet: The model.

    Returns:
        Published names to detached tensors that share memory with the model.

    Raises:
        ValueError: If the model has no ScaleU, which the published layout requires.
    """
    if unet.scaleu is None:
        raise ValueError("to_published: the model has no ScaleU (use_scaleu=False); the layout requires it")
    tensors = unet.state_dict()
    return {theirs: tensors[ours].detach() for ours, theirs in name_map(unet).items()}
