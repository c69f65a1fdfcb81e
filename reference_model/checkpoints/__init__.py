"""Checkpoints: the published layouts, read safely, and converted there and back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_model.checkpoints.conversion import convert
    from reference_model.checkpoints.detect import CheckpointKind, identify
    from reference_model.checkpoints.folders import Conversion
    from reference_model.checkpoints.gligen import gligen_from_original, gligen_to_original
    from reference_model.checkpoints.published import to_published, unet_config, unet_from_published
    from reference_model.checkpoints.publishing import publish
    from reference_model.checkpoints.restricted import open_checkpoint
    from reference_model.checkpoints.tensors import CheckpointError
    from reference_model.checkpoints.whole import read_first_convolution

__all__ = [
    "CheckpointError",
    "CheckpointKind",
    "Conversion",
    "convert",
    "gligen_from_original",
    "gligen_to_original",
    "identify",
    "open_checkpoint",
    "publish",
    "read_first_convolution",
    "to_published",
    "unet_config",
    "unet_from_published",
]

# Imported on first use: looking into a file needs neither diffusers nor transformers.
_HOMES = {
    "CheckpointError": "tensors",
    "CheckpointKind": "detect",
    "Conversion": "folders",
    "convert": "conversion",
    "gligen_from_original": "gligen",
    "gligen_to_original": "gligen",
    "identify": "detect",
    "open_checkpoint": "restricted",
    "publish": "publishing",
    "read_first_convolution": "whole",
    "to_published": "published",
    "unet_config": "published",
    "unet_from_published": "published",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reference_model.checkpoints' has no attribute {name!r}")
    return getattr(import_module(f"reference_model.checkpoints.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*globals(), *__all__])
