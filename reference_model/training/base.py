"""Fine-tuning: the start from Stable Diffusion or from weights of our own, and what stays as it is."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from reference_model.checkpoints.restricted import open_checkpoint
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor
from reference_model.training.recipe import UNetRecipe, grounding_settings, open_gates
from reference_model.unet import InstanceUNet

__all__ = [
    "check_noise_schedule",
    "freeze_base",
    "load_segment_backbone",
    "load_start",
    "unet_folder",
    "unet_from_base",
    "weights_sha256",
]

logger = logging.getLogger(__name__)

_CLASSIFIER = ("norm.", "head.")
_GROUNDING = ("position_net.", "scaleu.")


def unet_folder(base: Path) -> Path:
    """Folder of the base's UNet: ``unet`` of a pipeline folder, or the folder itself.

    Raises:
        ValueError: If neither holds one.
    """
    for folder in (base / "unet", base):
        config = folder / "config.json"
        if config.is_file():
            if json.loads(config.read_text(encoding="utf-8")).get("_class_name") == "UNet2DConditionModel":
                return folder
            raise ValueError(
                f"{config}: no UNet2DConditionModel; give a Stable Diffusion pipeline folder of diffusers"
            )
    raise ValueError(f"{base}: no unet/config.json; give a Stable Diffusion pipeline folder of diffusers")


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors of a folder, in the order of their names.

    Raises:
        ValueError: If there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no safetensors; save the model again with safe_serialization=True")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()


def check_noise_schedule(base: Path, recipe: UNetRecipe) -> None:
    """Compares the recipe's noise schedule with the one in a pipeline folder, where there is one.

    Raises:
        ValueError: If they differ: the base would be trained on noise that it does not know.
    """
    path = base / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("prediction_type", "epsilon")
    ends = () if recipe.beta_schedule == "squaredcos_cap_v2" else ("beta_start", "beta_end")
    for name in ("prediction_type", "beta_schedule", *ends):
        if config.get(name, getattr(recipe, name)) != getattr(recipe, name):
            raise ValueError(
                f"{path}: {name} is {config[name]!r}, the recipe has {getattr(recipe, name)!r}; "
                f"give --set '{name}={json.dumps(config[name])}'"
            )


def unet_from_base(base: Path, recipe: UNetRecipe, context_dim: int) -> InstanceUNet:
    """Starts from the UNet of a Stable Diffusion 1.x model; the grounding parts are new.

    Args:
        base: The pipeline folder, or the folder of a `UNet2DConditionModel`.
        recipe: Sizes and gates of the grounding parts.
        context_dim: Width of the text encoder.

    Returns:
        The network, float32, all parameters trainable.

    Raises:
        ValueError: If the folder holds no such UNet, or it takes texts of another width.
    """
    folder = unet_folder(base)
    try:
        unet = InstanceUNet.from_stable_diffusion(folder, **grounding_settings(recipe, context_dim))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: cannot be loaded from safetensors ({reason})") from None
    if unet.config.cross_attention_dim != context_dim:
        raise ValueError(
            f"{folder}: takes texts of width {unet.config.cross_attention_dim}, the text encoder has "
            f"{context_dim}; use the base's own"
        )
    open_gates(unet, recipe.gate)
    return unet.train()


def load_start(unet: InstanceUNet, folder: Path, anew: tuple[str, ...] = ()) -> list[str]:
    """Starts from trained weights of an `InstanceUNet`; its grounding parts may be others than the network's.

    UniFusion and ScaleU are left out where the network has none, and stay as they were initialised where the
    folder has none.

    Args:
        unet: The network, changed in place.
        folder: Folder of the UNet, as `save_pretrained` writes it.
        anew: First words of the names of parameters that stay as they were initialised.

    Returns:
        Names of the parameters that start anew.

    Raises:
        ValueError: If the folder holds no such UNet, a tensor has another shape, or `anew` names nothing.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(
            f"{folder}: {len(files)} safetensors, expected 1; give the folder of one InstanceUNet"
        )
    try:
        weights = load_file(files[0])
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{files[0]}: cannot be read ({reason}); give another folder") from None
    own = unet.state_dict()
    for prefix in anew:
        if not any(name.startswith(prefix) for name in own):
            raise ValueError(f"anew: no parameter is called {prefix}...; see InstanceUNet")
    kept = {name: one for name, one in weights.items() if name in own and not name.startswith(anew)}
    new = sorted(set(own) - set(kept))
    left = sorted(name for name in set(weights) - set(own) if not name.startswith(anew))
    strangers = [name for name in left if not name.startswith(_GROUNDING)]
    lost = [name for name in new if not name.startswith((*_GROUNDING, *anew))]
    wrong = [name for name, one in kept.items() if one.shape != own[name].shape]
    if strangers or lost or wrong:
        example = (strangers or lost or wrong)[0]
        raise ValueError(
            f"{files[0]}: not the weights of this network ({example}); take the recipe's own sizes, or name "
            "what may differ with --set 'anew=[...]'"
        )
    unet.load_state_dict(kept, strict=False)
    logger.info("%s: %d tensors start anew, %d are left out", folder, len(new), len(left))
    return new


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
        path: Weights with the names of the original ConvNeXt release, safetensors or its own ``.pth``; the
            classifier is left out. The published code takes ``convnext_tiny_1k_224_ema.pth``
            (``ldm/modules/diffusionmodules/convnext.py``).

    Raises:
        ValueError: If the model has no segment branch, or the file is another network's.
    """
    backbone = getattr(unet.position_net, "convnext_tiny_backbone", None)
    if backbone is None:
        raise ValueError(f"{path}: the model has no segment branch; leave --segment-backbone out")
    try:
        with open_checkpoint(path) as content:
            entries = content.get("model", content)
            tensors = {str(name): one.read() for name, one in entries.items() if isinstance(one, LazyTensor)}
    except (CheckpointError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: no weights of a ConvNeXt ({reason}); download it again") from None
    own = {name: value for name, value in tensors.items() if not name.startswith(_CLASSIFIER)}
    try:
        backbone.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not the ConvNeXt of this model: {reason}") from None
