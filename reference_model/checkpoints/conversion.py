"""Published checkpoints to pipeline folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from reference_model.checkpoints.config import read_yaml
from reference_model.checkpoints.detect import CheckpointKind, require_published
from reference_model.checkpoints.folders import (
    GLIGEN_PIPELINE,
    INSTANCE_PIPELINE,
    Conversion,
    appearing,
    check_target,
    load_component,
    pipeline_class,
)
from reference_model.checkpoints.restricted import open_checkpoint
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, materialise
from reference_model.checkpoints.text_encoder import load_tokenizer
from reference_model.checkpoints.whole import Components, Weights, assemble_published
from reference_model.pipeline import InstanceDiffusionPipeline

__all__ = ["DTYPES", "convert"]

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16}


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
    check_target(output, source, overwrite)
    if source.is_dir():
        parts = _gligen_folder(source, tokenizer, DTYPES[dtype], format)
    else:
        settings = None if config is None else read_yaml(config)
        with open_checkpoint(source) as content:
            require_published(content, format)
            if tokenizer is None:
                raise CheckpointError(
                    "a published checkpoint holds no tokenizer; give --tokenizer DIR, the tokenizer of CLIP ViT-L/14 "
                    "(the folder tokenizer of any Stable Diffusion 1.x pipeline)"
                )
            chosen = load_tokenizer(tokenizer)
            parts = assemble_published(
                content,
                chosen,
                config=settings,
                wanted=format,
                weights=weights,
                dtype=DTYPES[dtype],
            )
    for module in (parts.unet, parts.vae, parts.text_encoder):
        nn.Module.to(
            module, DTYPES[dtype]
        )  # diffusers' own warns of modules to keep in float32, of which it has none
    with appearing(output) as partial:
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
    index: dict[str, Any] = {"_class_name": GLIGEN_PIPELINE, "_diffusers_version": diffusers.__version__}
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


def _check_finite(module: nn.Module, part: str, dtype: torch.dtype) -> None:
    for name, tensor in module.state_dict().items():
        if not name.endswith("position_ids"):
            materialise({name: LazyTensor(tuple(tensor.shape), tensor.dtype, tensor.detach)}, part, dtype)


def _gligen_folder(folder: Path, tokenizer: Path | None, dtype: torch.dtype, wanted: str) -> Components:
    """The components of a GLIGEN pipeline folder."""
    kind = pipeline_class(folder)
    if kind == INSTANCE_PIPELINE:
        raise CheckpointError(
            f"{folder}: already an InstanceDiffusion pipeline folder; give it to --checkpoint"
        )
    if kind != GLIGEN_PIPELINE:
        raise CheckpointError(f"{folder}: holds a {kind}; give an InstanceDiffusion or GLIGEN checkpoint")
    if wanted not in ("auto", "gligen"):
        raise CheckpointError(
            f"{folder}: this is GLIGEN in diffusers' layout, not {wanted!r}; use --format auto"
        )
    unet = load_component(UNet2DConditionModel, folder, "unet")
    if unet.config.attention_type != "gated" or unet.config.in_channels != 4:
        raise CheckpointError(
            f"{folder}: GLIGEN for another task; only generation from boxes and text is supported"
        )
    vae, text_encoder = (
        load_component(AutoencoderKL, folder, "vae"),
        load_component(CLIPTextModel, folder, "text_encoder"),
    )
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
