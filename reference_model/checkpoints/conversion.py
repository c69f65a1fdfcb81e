"""Published checkpoints to pipeline folders, and pipeline folders to published names."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from reference_model.checkpoints.autoencoder import autoencoder_params, autoencoder_to_published
from reference_model.checkpoints.config import read_yaml
from reference_model.checkpoints.detect import CheckpointKind
from reference_model.checkpoints.gligen import gligen_to_original
from reference_model.checkpoints.published import to_published, unet_config
from reference_model.checkpoints.restricted import CONFIG_KEY, open_checkpoint
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, listing, materialise
from reference_model.checkpoints.text_encoder import load_tokenizer, text_encoder_to_published
from reference_model.checkpoints.whole import Components, Weights, assemble_published
from reference_model.pipeline import InstanceDiffusionPipeline
from reference_model.unet import InstanceUNet

__all__ = ["DTYPES", "Conversion", "convert", "publish"]

logger = logging.getLogger(__name__)

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16}
_INSTANCE_PIPELINE: Final = "InstanceDiffusionPipeline"
_GLIGEN_PIPELINE: Final = "StableDiffusionGLIGENPipeline"
_PUBLISHED_GROUPS: Final = 32  # of every GroupNorm; the published configuration cannot say otherwise


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        kind: What was converted, in words.
        output: What was written.
        weights: Which weights the UNet has: ``"ema"`` or ``"model"``.
        dtype: Type of the numbers written.
        parameters: Parameters of the UNet.
        left_out: Parts of the source that were not needed.
    """

    kind: str
    output: Path
    weights: str
    dtype: str
    parameters: int
    left_out: tuple[str, ...] = ()


def convert(
    source: Path,
    output: Path,
    *,
    tokenizer: Path | None = None,
    config: Path | None = None,
    dtype: str = "float32",
    format: str = "auto",
    weights: Weights = "auto",
    overwrite: bool = False,
) -> Conversion:
    """Writes a checkpoint as a pipeline folder of diffusers.

    Args:
        source: A whole InstanceDiffusion or GLIGEN checkpoint as published (`.pth`, or `.safetensors` from
            `publish`), or a GLIGEN pipeline folder of diffusers.
        output: The folder to write; it appears when it is complete.
        tokenizer: Folder of the tokenizer; published files have none.
        config: Published YAML to use in place of the configuration in the file.
        dtype: ``"float32"`` or ``"float16"``.
        format: ``"instancediffusion"``, ``"gligen"`` or ``"auto"``: told from the names of the tensors.
        weights: ``"ema"``, ``"model"`` or ``"auto"``: averaged weights if there are any.
        overwrite: Replace an existing folder.

    Returns:
        What was done.

    Raises:
        CheckpointError: If anything that was given is wrong; one line that names it.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype: {dtype!r} is unknown; choose from {', '.join(DTYPES)}")
    _check_target(output, source, overwrite)
    if source.is_dir():
        parts = _gligen_folder(source, tokenizer, DTYPES[dtype], format)
    else:
        if tokenizer is None:
            raise CheckpointError(
                f"{source}: a published checkpoint holds no tokenizer; give --tokenizer DIR, the tokenizer of CLIP "
                "ViT-L/14 (the folder tokenizer of any Stable Diffusion 1.x pipeline)"
            )
        chosen = load_tokenizer(tokenizer)
        settings = None if config is None else read_yaml(config)
        with open_checkpoint(source) as content:
            parts = assemble_published(
                content,
                chosen,
                config=settings,
                wanted=format,
                weights=weights,
                dtype=DTYPES[dtype],
            )
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.to(DTYPES[dtype])
    with _appearing(output) as partial:
        _write(parts, partial)
    parameters = sum(parameter.numel() for parameter in parts.unet.parameters())
    return Conversion(parts.kind.value, output, parts.weights, dtype, parameters, parts.left_out)


def _write(parts: Components, folder: Path) -> None:
    if parts.kind is CheckpointKind.INSTANCE_DIFFUSION:
        pipeline = InstanceDiffusionPipeline(
            vae=parts.vae,
            text_encoder=parts.text_encoder,
            tokenizer=parts.tokenizer,
            unet=parts.unet,
            scheduler=parts.scheduler,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
        return
    # Written by hand: diffusers keeps this pipeline among its deprecated ones.
    components: dict[str, Any] = {
        "unet": parts.unet,
        "vae": parts.vae,
        "text_encoder": parts.text_encoder,
        "tokenizer": parts.tokenizer,
        "scheduler": parts.scheduler,
    }
    index: dict[str, Any] = {"_class_name": _GLIGEN_PIPELINE, "_diffusers_version": diffusers.__version__}
    for name, component in components.items():
        component.save_pretrained(folder / name)
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        index[name] = [library, "CLIPTokenizer" if name == "tokenizer" else type(component).__name__]
    index |= {
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")


def _class_of(folder: Path) -> str:
    """The pipeline class that a folder names."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return str(index["_class_name"])
    except OSError:
        raise CheckpointError(
            f"{folder}: has no model_index.json; give a pipeline folder or a checkpoint file"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{folder / 'model_index.json'}: damaged; copy the folder again") from None


def _load(kind: Any, folder: Path, name: str) -> Any:
    """Loads one component from safetensors alone."""
    try:
        return kind.from_pretrained(folder / name, use_safetensors=True, local_files_only=True).eval()
    except Exception as error:  # whatever a damaged folder makes the loaders raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / name}: cannot be loaded from safetensors ({reason})") from None


def _check_finite(module: nn.Module, part: str, dtype: torch.dtype) -> None:
    for name, tensor in module.state_dict().items():
        if not name.endswith("position_ids"):
            materialise({name: LazyTensor(tuple(tensor.shape), tensor.dtype, tensor.detach)}, part, dtype)


def _gligen_folder(folder: Path, tokenizer: Path | None, dtype: torch.dtype, wanted: str) -> Components:
    """The components of a GLIGEN pipeline folder."""
    kind = _class_of(folder)
    if kind == _INSTANCE_PIPELINE:
        raise CheckpointError(
            f"{folder}: already an InstanceDiffusion pipeline folder; give it to --checkpoint"
        )
    if kind != _GLIGEN_PIPELINE:
        raise CheckpointError(f"{folder}: holds a {kind}; give an InstanceDiffusion or GLIGEN checkpoint")
    if wanted not in ("auto", "gligen"):
        raise CheckpointError(
            f"{folder}: this is GLIGEN in diffusers' layout, not {wanted!r}; use --format auto"
        )
    unet = _load(UNet2DConditionModel, folder, "unet")
    if unet.config.attention_type != "gated" or unet.config.in_channels != 4:
        raise CheckpointError(
            f"{folder}: GLIGEN for another task; only generation from boxes and text is supported"
        )
    vae, text_encoder = _load(AutoencoderKL, folder, "vae"), _load(CLIPTextModel, folder, "text_encoder")
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder)):
        _check_finite(module, f"{folder / name}", dtype)
    try:
        scheduler = PNDMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    except Exception as error:  # likewise
        raise CheckpointError(
            f"{folder / 'scheduler'}: cannot be loaded ({' '.join(str(error).split())})"
        ) from None
    return Components(
        CheckpointKind.GLIGEN,
        unet,
        vae,
        text_encoder,
        load_tokenizer(tokenizer or folder),
        scheduler,
        "model",
        (),
    )


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
    _check_target(output, folder, overwrite)
    kind = _class_of(folder)
    if kind not in (_INSTANCE_PIPELINE, _GLIGEN_PIPELINE):
        raise CheckpointError(
            f"{folder}: holds a {kind}; give an InstanceDiffusion or GLIGEN pipeline folder"
        )
    instance = kind == _INSTANCE_PIPELINE
    unet = _load(InstanceUNet if instance else UNet2DConditionModel, folder, "unet")
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
    with _appearing(output) as partial:
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
        "transformer_depth": 1,
        "fuser_type": "gatedSA",
    }
    if not isinstance(config.attention_head_dim, int):
        raise ValueError("attention_head_dim: the published layout knows one number of heads for all levels")
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
        expected = unet_config(model, params)
        differing = [
            name
            for name, value in expected.items()
            if config[name] is not None and _plain(config[name]) != _plain(value)
        ]
        if differing:
            raise ValueError(f"the published layout cannot express this model's {listing(differing)}")
    if config.norm_num_groups != _PUBLISHED_GROUPS:
        raise ValueError(
            f"norm_num_groups: the published layout has {_PUBLISHED_GROUPS}, not {config.norm_num_groups}"
        )
    return params


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
    vae = _load(AutoencoderKL, folder, "vae")
    parts["autoencoder"] = autoencoder_to_published(vae)
    parts["text_encoder"] = text_encoder_to_published(_load(CLIPTextModel, folder, "text_encoder"))
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


def _check_target(output: Path, source: Path, overwrite: bool) -> None:
    """Refuses to write where something else would be lost."""
    if not output.resolve().parent.is_dir():
        raise CheckpointError(f"{output}: its folder does not exist; make it first")
    if not output.exists():
        return
    if not overwrite:
        raise CheckpointError(f"{output}: already exists; give another name or --overwrite")
    if source.resolve().is_relative_to(output.resolve()):
        raise CheckpointError(f"{output}: holds what is to be converted; give another name")
    ours = output.is_file() if output.suffix == ".safetensors" else (output / "model_index.json").is_file()
    if not ours:
        raise CheckpointError(f"{output}: --overwrite replaces earlier conversions only; give another name")


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """A path to write to, which becomes `output` when everything went well and vanishes otherwise."""
    target = output.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        partial = Path(scratch) / target.name
        yield partial
        if target.exists():
            target.replace(Path(scratch) / "old")
        partial.replace(target)
