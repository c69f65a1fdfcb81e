"""The real images through the checkpoint's autoencoder: the ceiling of anything drawn in its latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.generators.checkpoint import READABLE, pipeline_folder
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.generators.real_images import RealImagesGenerator

__all__ = ["ReconstructionsGenerator"]


class ReconstructionsGenerator(InstanceDiffusionGenerator):
    """Encodes and decodes the image that a layout was made from; nothing is sampled.

    Arguments as in `InstanceDiffusionGenerator`.
    """

    kind = "reconstructions"

    def find_folder(self, checkpoint: Path | None) -> Path:
        """The checkpoint, of any kind whose parts can be read, or the shipped weights.

        Raises:
            InputError: If it is missing or holds something else.
        """
        return pipeline_folder(checkpoint, kinds=READABLE)

    def identity(self) -> Mapping[str, Any]:
        """That of the checkpoint and of the real images."""
        return {**super().identity(), "real_images": dict(RealImagesGenerator().identity())}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Nothing is sampled: all settings are None."""
        return SamplingSettings()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields the reconstruction of each layout's real image.

        Raises:
            InputError: If an image is missing or unknown.
        """
        for real in RealImagesGenerator().generate(requests):
            [picture] = self.pipeline.reconstruct([real.image])
            yield GeneratedImage(real.image_key, picture)
