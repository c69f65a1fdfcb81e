"""The floor: the reference model with grounding off."""

from __future__ import annotations

from dataclasses import replace

from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.layouts.types import Condition

__all__ = ["TextOnlyGenerator"]


class TextOnlyGenerator(InstanceDiffusionGenerator):
    """The same weights, caption and noise, but no instance is shown to the model.

    All instance slots hold the learned nulls, which is how the model is trained to draw from text alone; so the
    floor does not suffer from switched-off layers. Arguments as in `InstanceDiffusionGenerator`.
    """

    kind = "text-only"

    def shown(self, request: GenerationRequest) -> frozenset[Condition]:
        """Nothing."""
        return frozenset()

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """As the reference model, without the Multi-Instance Sampler: there are no instances to sample."""
        return replace(super().resolve_sampling(settings), mis=0.0)
