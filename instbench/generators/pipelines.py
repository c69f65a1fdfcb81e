"""Pipeline folders of three kinds in the one sampler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench.generators.checkpoint import (
    GLIGEN_PIPELINE,
    STABLE_DIFFUSION_PIPELINE,
    read_index,
    recommended_sampling,
)

if TYPE_CHECKING:
    import torch

    from reference_model.pipeline import InstanceDiffusionPipeline

__all__ = ["load_pipeline"]


def load_pipeline(folder: Path, dtype: torch.dtype) -> InstanceDiffusionPipeline:
    """Loads a pipeline folder, from safetensors and from this machine alone.

    Args:
        folder: Folder of an `InstanceDiffusionPipeline`, `StableDiffusionGLIGENPipeline` or
            `StableDiffusionPipeline`.
        dtype: Type of the numbers.

    Returns:
        The pipeline. Stable Diffusion gets grounded layers that are never run: its settings switch them off.

    Raises:
        ValueError: If the UNet does not fit.
        OSError: If files are missing or damaged.
    """
    from torch import nn  # deferred: planning a run needs no torch

    from reference_model.pipeline import InstanceDiffusionPipeline
    from reference_model.unet import InstanceUNet

    index = read_index(folder)
    kind = index.get("_class_name")
    options: dict[str, Any] = {}
    if kind == GLIGEN_PIPELINE:
        options["unet"] = InstanceUNet.from_gligen(folder, subfolder="unet")
    elif kind == STABLE_DIFFUSION_PIPELINE:
        options["unet"] = InstanceUNet.from_stable_diffusion(
            folder, subfolder="unet", grounding_net="gligen", use_scaleu=False
        )
    if options:
        nn.Module.to(options["unet"], dtype)  # diffusers' own warns of layers kept in float32; there are none
        options["sampling_defaults"] = recommended_sampling(index)
    return InstanceDiffusionPipeline.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, **options
    )
