"""Checkpoints of the published implementation."""

from reference_model.checkpoints.published import to_published, unet_config, unet_from_published

__all__ = ["to_published", "unet_config", "unet_from_published"]
