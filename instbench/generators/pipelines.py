"""Pipeline folders of three kinds in the one sampler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench.generators.checkpoint import (
    GLIGEN_PIPELINE,
    STABLE_DIFFUSION_PIPELINE,
    check_schedule,
    read_index,
    recommended_sampling,
)

if TYPE_CHECKING:
    import torch

    from reference_model.pipeline import InstanceDiffusionPipeline

__all__ = ["load_pipeline"]

_COMPONENTS = {
    "vae": ("diffusers", "AutoencoderKL|AutoencoderDC"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer|CLIPTokenizerFast"),
    "scheduler": ("diffusers", "[A-Za-z0-9]+Scheduler"),
}
"""Library and classes of the components. Loaders import what an index names, so nothing else may be named."""


def load_pipeline(folder: Path, dtype: torch.dtype) -> InstanceDiffusionPipeline:
    """Loads a pipeline folder, from safetensors and from this machine alone.

    Args:
        folder: Folder of an `InstanceDiffusionPipeline`, `StableDiffusionGLIGENPipeline` or
            `StableDiffusionPipeline`.
        dtype: Type of the numbers.

    Returns:
        The pipeline. Stable Diffusion gets grounded layers that are never run: its settings switch them off.

    Raises:
        ValueError: If a component is of another class, does not fit, or has NaN or infinite weights.
        OSError: If files are missing or damaged.
    """
    from torch import nn  # deferred: planning a run needs no torch

    from reference_model.checkpoints.folders import load_component
    from reference_model.pipeline import InstanceDiffusionPipeline
    from reference_model.unet import InstanceUNet

    check_schedule(folder)
    index = read_index(folder)
    kind = index.get("_class_name")
    options: dict[str, Any] = {
        name: load_component(_component_class(index, folder, name), folder, name, dtype)
        for name in ("vae", "text_encoder")
    }
    for name in ("tokenizer", "scheduler"):
        _component_class(index, folder, name)
    if kind == GLIGEN_PIPELINE:
        options["unet"] = InstanceUNet.from_gligen(folder, subfolder="unet")
    elif kind == STABLE_DIFFUSION_PIPELINE:
        options["unet"] = InstanceUNet.from_stable_diffusion(
            folder, subfolder="unet", grounding_net="gligen", use_scaleu=False
        )
    else:
        options["unet"] = load_component(InstanceUNet, folder, "unet", dtype)
    if kind in (GLIGEN_PIPELINE, STABLE_DIFFUSION_PIPELINE):
        nn.Module.to(options["unet"], dtype)  # diffusers' own warns of layers kept in float32; there are none
        options["sampling_defaults"] = recommended_sampling(index)
    return InstanceDiffusionPipeline.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, **options
    )


def _component_class(index: Mapping[str, Any], folder: Path, name: str) -> Any:
    """The class that ``model_index.json`` names for a component; others are not imported.

    Raises:
        CheckpointError: If it is none of those that a pipeline here can have.
    """
    import diffusers
    import transformers

    from reference_model.checkpoints.tensors import CheckpointError

    entry = index.get(name)
    library, kind = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    allowed_library, pattern = _COMPONENTS[name]
    module = {"diffusers": diffusers, "transformers": transformers}[allowed_library]
    if library == allowed_library and isinstance(kind, str) and re.fullmatch(pattern, kind):
        found = getattr(module, kind, None)
        if found is not None:
            return found
    raise CheckpointError(
        f"{folder / 'model_index.json'}: field {name} is {str(entry)[:80]}; a class of {allowed_library} is needed "
        f"({pattern.replace('|', ' or ').replace('[A-Za-z0-9]+', '...')})"
    )
