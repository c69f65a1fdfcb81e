"""GLIGEN (boxes and text): from its original layout to diffusers' and back.

GLIGEN's UNet is Stable Diffusion's with gated self-attention and a small position net. Diffusers has it as
`UNet2DConditionModel(attention_type="gated")`; apart from the numbering of the blocks the names agree with those of
InstanceDiffusion's UNet without ScaleU, so the same map serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from reference_model.checkpoints.published import assign_published, backbone_config, name_map

__all__ = ["gligen_from_original", "gligen_to_original"]


def gligen_from_original(
    state_dict: Mapping[str, Tensor], params: Mapping[str, Any], *, copy: bool = True
) -> UNet2DConditionModel:
    """Builds the UNet of an original GLIGEN checkpoint.

    Args:
        state_dict: `checkpoint["model"]`: original names to tensors (any floating dtype).
        params: The `model.params` of its configuration, see `backbone_config`.
        copy: Copy the tensors; else float32 ones are shared.

    Returns:
        Diffusers' UNet with gated self-attention, float32, in eval mode, on the CPU.

    Raises:
        ValueError: If tensors are missing, unexpected or of the wrong shape; all are named.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(attention_type="gated", **backbone_config(params))
    assign_published(unet, state_dict, copy=copy)
    return unet.eval()


def gligen_to_original(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The tensors of a GLIGEN UNet of diffusers under their original names.

    Args:
        unet: A UNet with ``attention_type="gated"``.

    Returns:
        Original names to detached tensors that share memory with the model.

    Raises:
        ValueError: If the UNet is not GLIGEN's.
    """
    if unet.config.attention_type != "gated":
        raise ValueError(
            f"attention_type: {unet.config.attention_type!r}, not 'gated'; this is not GLIGEN's UNet"
        )
    tensors = unet.state_dict()
    return {theirs: tensors[ours].detach() for ours, theirs in name_map(unet).items()}
