"""InstanceDiffusion on diffusers: modules, sampler, pipeline, checkpoints and training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_model.fourier import fourier_embed
    from reference_model.gated_attention import GatedSelfAttention, Grounding
    from reference_model.pipeline import InstanceDiffusionPipeline
    from reference_model.scaleu import ScaleU
    from reference_model.unet import InstanceUNet
    from reference_model.unifusion import UniFusion

__all__ = [
    "GatedSelfAttention",
    "Grounding",
    "InstanceDiffusionPipeline",
    "InstanceUNet",
    "ScaleU",
    "UniFusion",
    "fourier_embed",
]

# Imported on first use, so that `import reference_model` stays free of torch.
_HOMES = {
    "GatedSelfAttention": "gated_attention",
    "Grounding": "gated_attention",
    "InstanceDiffusionPipeline": "pipeline",
    "InstanceUNet": "unet",
    "ScaleU": "scaleu",
    "UniFusion": "unifusion",
    "fourier_embed": "fourier",
}
_SUBMODULES = ("checkpoints", "grounding", "pipeline", "points", "sampling", "scaleu", "training")


def __getattr__(name: str) -> Any:
    """Imports a public name from its module."""
    if name in _SUBMODULES:
        return import_module(f"reference_model.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'reference_model' has no attribute {name!r}")
    return getattr(import_module(f"reference_model.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*globals(), *__all__])
