"""Pipeline folders to one file with published names, the way back of `convert`."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from reference_model.checkpoints.autoencoder import autoencoder_params, autoencoder_to_published
from reference_model.checkpoints.detect import CheckpointKind
from reference_model.checkpoints.folders import (
    GLIGEN_PIPELINE,
    INSTANCE_PIPELINE,
    Conversion,
    appearing,
    check_target,
    load_component,
    pipeline_class,
)
from reference_model.checkpoints.gligen import gligen_to_original
from reference_model.checkpoints.published import to_published, unet_config
from reference_model.checkpoints.restricted import CONFIG_KEY
from reference_model.checkpoints.tensors import CheckpointError, listing
from reference_model.checkpoints.text_encoder import text_encoder_to_published
from reference_model.unet import InstanceUNet

__all__ = ["publish"]

logger = logging.getLogger(__name__)

_LOST_SETTINGS: Final = frozenset({"masked_attention", "local_mask_radius"})
_FREE_SETTINGS: Final = _LOST_SETTINGS | {
    "sample_size",
    "dropout",
}  # no number of the model depends on the latter
_PUBLISHED_GROUPS: Final = 32  # of every GroupNorm; the published configuration cannot say otherwise


def publish(folder: Path, output: Path, *, overwrite: bool = False) -> Conversion:
    """Writes a pipeline folder as one safetensors file with published names, the way back of `convert`.

    The parts are `model.…`, `autoencoder.…`, `text_encoder.…` and `diffusion.…`; the configuration is JSON in the
    metadata, as `config_dict`. `convert` reads the file; ``{name[6:]: tensor}`` of the names that start with
    ``model.`` is the `model` of the published code.

    Args:
        folder: An InstanceDiffusion or GLIGEN pipeline folder.
        output: The `.safetensors` file to write.
        overwrite: Replace an existing file.

    Returns:
        What was done.

    Raises:
        CheckpointError: If the folder is of another kind, or the published layout cannot express the model.
    """
    if output.suffix != ".safetensors":
        raise CheckpointError(
            f"{output}: published names are written as safetensors; end the name in .safetensors"
        )
    check_target(output, folder, overwrite)
    kind = pipeline_class(folder)
    if kind not in (INSTANCE_PIPELINE, GLIGEN_PIPELINE):
        raise CheckpointError(
            f"{folder}: holds a {kind}; give an InstanceDiffusion or GLIGEN pipeline folder"
        )
    instance = kind == INSTANCE_PIPELINE
    unet = load_component(InstanceUNet if instance else UNet2DConditionModel, folder, "unet")
    try:
        model = to_published(unet) if instance else gligen_to_original(unet)
        params = _model_params(unet, model)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'unet'}: {error}") from None
    parts: dict[str, dict[str, Tensor]] = {"model": model}
    config: dict[str, Any] = {"model": {"params": params}}
    _add_other_parts(folder, parts, config)
    # Safetensors refuses tensors that share memory.
    flat = {
        f"{part}.{name}": tensor.contiguous().clone()
        for part, held in parts.items()
        for name, tensor in held.items()
    }
    with appearing(output) as partial:
        save_file(flat, str(partial), metadata={"format": "pt", CONFIG_KEY: json.dumps(config)})
    parameters = sum(parameter.numel() for parameter in unet.parameters())
    found = CheckpointKind.INSTANCE_DIFFUSION if instance else CheckpointKind.GLIGEN
    return Conversion(found.value, output, "model", str(unet.dtype).removeprefix("torch."), parameters)


def _model_params(unet: UNet2DConditionModel, model: dict[str, Tensor]) -> dict[str, Any]:
    """`model.params` of the published YAML, checked to say what the model is."""
    config = unet.config
    base = config.block_out_channels[0]
    attends = [name.startswith("CrossAttn") for name in config.down_block_types]
    params: dict[str, Any] = {
        "image_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": base,
        "channel_mult": [width // base for width in config.block_out_channels],
        "num_res_blocks": config.layers_per_block,
        "attention_resolutions": [2**level for level, attend in enumerate(attends) if attend],
        "num_heads": config.attention_head_dim,
        "context_dim": config.cross_attention_dim,
        "transformer_depth": config.transformer_layers_per_block,
        "fuser_type": "gatedSA",
    }
    for name in ("attention_head_dim", "transformer_layers_per_block"):
        if not isinstance(config[name], int):
            raise ValueError(f"{name}: the published layout knows one number for all levels")
    if isinstance(unet, InstanceUNet):
        names = {
            "in_dim": config.grounding_in_dim,
            "out_dim": config.grounding_out_dim,
            "mid_dim": config.grounding_mid_dim,
        }
        dims = {name: size for name, size in names.items() if size is not None}
        plural = {"box": "boxes", "point": "points", "scribble": "scribbles", "mask": "masks"}
        drops = {f"test_drop_{word}": name not in config.grounding_keep for name, word in plural.items()}
        params["grounding_tokenizer"] = {"params": {**dims, **drops}}
        _check_settings(config, unet_config(model, params))
    if config.norm_num_groups != _PUBLISHED_GROUPS:
        raise ValueError(
            f"norm_num_groups: the published layout has {_PUBLISHED_GROUPS}, not {config.norm_num_groups}"
        )
    return params


def _check_settings(config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compares a model's settings with those that it will have when it comes back from the published layout."""
    signature = inspect.signature(InstanceUNet.__init__).parameters.values()
    defaults = {each.name: each.default for each in signature if each.default is not each.empty}
    changed = [
        name
        for name, value in {**defaults, **expected}.items()
        if config[name] is not None and _plain(config[name]) != _plain(value)
    ]
    if refused := set(changed) - _FREE_SETTINGS - {"norm_num_groups"}:
        raise ValueError(f"the published layout cannot express this model's {listing(refused)}")
    if lost := set(changed) & _LOST_SETTINGS:
        logger.warning("the published layout has no place for %s; they are left out", listing(lost))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _add_other_parts(folder: Path, parts: dict[str, dict[str, Tensor]], config: dict[str, Any]) -> None:
    """Adds autoencoder, text encoder and schedule, where the published layout can express them."""
    try:
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        vae_class = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8")).get(
            "_class_name"
        )
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: scheduler or vae cannot be read ({error})") from None
    standard = (
        scheduler.get("beta_schedule") == "scaled_linear" and scheduler.get("prediction_type") == "epsilon"
    )
    if vae_class != "AutoencoderKL" or not standard:
        logger.warning(
            "%s: the published layout has no place for its autoencoder (%s) or noise schedule (%s, %s); "
            "the UNet is written alone",
            folder,
            vae_class,
            scheduler.get("beta_schedule"),
            scheduler.get("prediction_type"),
        )
        return
    vae = load_component(AutoencoderKL, folder, "vae")
    parts["autoencoder"] = autoencoder_to_published(vae)
    parts["text_encoder"] = text_encoder_to_published(load_component(CLIPTextModel, folder, "text_encoder"))
    loaded = PNDMScheduler.from_config(scheduler)
    parts["diffusion"] = {"betas": loaded.betas, "alphas_cumprod": loaded.alphas_cumprod}
    config["autoencoder"] = {"params": autoencoder_params(vae)}
    config["diffusion"] = {
        "params": {
            "linear_start": scheduler["beta_start"],
            "linear_end": scheduler["beta_end"],
            "timesteps": scheduler["num_train_timesteps"],
        }
    }
