"""The floor: the reference model with grounding off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.generators.checkpoint import READABLE, pipeline_folder
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.layouts.types import Condition

__all__ = ["TextOnlyGenerator"]


class TextOnlyGenerator(InstanceDiffusionGenerator):
    """The same weights, caption and noise, but no instance is shown to the model.

    The checkpoint may also be GLIGEN's (`StableDiffusionGLIGENPipeline`) or plain Stable Diffusion 1.x
    (`StableDiffusionPipeline`), which has no grounded layers at all.

    All instance slots hold the learned nulls, which is how the model is trained to draw from text alone; so the
    floor does not suffer from switched-off layers. Arguments as in `InstanceDiffusionGenerator`.
    """

    kind = "text-only"

    def find_folder(self, checkpoint: Path | None) -> Path:
        """The checkpoint, of any kind whose parts can be read, or the shipped weights.

        Raises:
            InputError: If it is missing or holds something else.
        """
        return pipeline_folder(checkpoint, kinds=READABLE)

    def shown(self, request: GenerationRequest) -> frozenset[Condition]:
        """Nothing."""
        return frozenset()

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """As the reference model, without the Multi-Instance Sampler: there are no instances to sample."""
        return replace(super().resolve_sampling(settings), mis=0.0)
