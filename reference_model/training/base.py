"""Fine-tuning: the start from Stable Diffusion, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from reference_model.training.recipe import UNetRecipe, grounding_settings, open_gates
from reference_model.unet import InstanceUNet

__all__ = ["freeze_base", "load_segment_backbone", "unet_from_base"]

_CLASSIFIER = ("norm.", "head.")


def unet_from_base(base: Path, recipe: UNetRecipe, context_dim: int) -> InstanceUNet:
    """Starts from the UNet of a Stable Diffusion 1.x pipeline folder; the grounding parts are new.

    Args:
        base: The pipeline folder.
        recipe: Sizes and gates of the grounding parts.
        context_dim: Width of the text encoder.

    Returns:
        The network, float32, all parameters trainable.

    Raises:
        ValueError: If the folder holds no such UNet.
    """
    if not (base / "unet" / "config.json").is_file():
        raise ValueError(f"{base}: no unet/config.json; give a Stable Diffusion pipeline folder of diffusers")
    unet = InstanceUNet.from_stable_diffusion(
        base, subfolder="unet", **grounding_settings(recipe, context_dim)
    )
    open_gates(unet, recipe.gate)
    return unet.train()


def freeze_base(unet: InstanceUNet) -> list[str]:
    """Leaves gradients to UniFusion, the gated layers and ScaleU alone.

    The first convolution is Stable Diffusion's and frozen too, as published (``get_trainable_params`` of
    ``utils/optimizer.py``); that is why the published sampler may put the original back.

    Returns:
        Names of the parameters that are trained.
    """
    trained = []
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name.startswith(("position_net.", "scaleu.")) or ".fuser." in name)
        if parameter.requires_grad:
            trained.append(name)
    return trained


def load_segment_backbone(unet: InstanceUNet, path: Path) -> None:
    """Starts the segment branch from a trained ConvNeXt, as the published code does from ImageNet's.

    Args:
        unet: The network.
        path: Safetensors with the names of the original ConvNeXt release; its classifier is left out.

    Raises:
        ValueError: If the model has no segment branch, or the file is another network's.
    """
    backbone = getattr(unet.position_net, "convnext_tiny_backbone", None)
    if backbone is None:
        raise ValueError(f"{path}: the model has no segment branch; leave --segment-backbone out")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a safetensors file ({error}); convert it first") from None
    own = {name: value for name, value in tensors.items() if not name.startswith(_CLASSIFIER)}
    try:
        backbone.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not the ConvNeXt of this model: {reason}") from None
