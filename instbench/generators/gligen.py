"""GLIGEN as a generator: the baseline that knows boxes alone.

GLIGEN takes a phrase and a box per instance. A benchmark that shows something else is answered with the box that
follows from what is shown, and from nothing more: the bounding box of a mask or of the points of a scribble, and a
square of a fixed side (40 % of the canvas) around a point. See `instbench.generators.boxes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench.generators.base import GenerationRequest, SamplingSettings
from instbench.generators.boxes import MIN_SIDE, POINT_SIDE, as_boxes
from instbench.generators.checkpoint import (
    GLIGEN_PIPELINE,
    GLIGEN_WEIGHTS,
    INSTANCE_PIPELINE,
    grounding_net,
    pipeline_folder,
)
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.layouts.types import Condition

if TYPE_CHECKING:
    from reference_model.grounding import GroundedPrompt

__all__ = ["GligenGenerator"]


class GligenGenerator(InstanceDiffusionGenerator):
    """GLIGEN's box tokens and gated attention in the sampler of the reference model, without ScaleU.

    The checkpoint is a folder of the reference model's classes with box tokens, or GLIGEN as diffusers has it
    (`StableDiffusionGLIGENPipeline`; `instbench convert` makes one of the original file). The Multi-Instance
    Sampler is no part of GLIGEN; it is off unless it is asked for. Arguments as in `InstanceDiffusionGenerator`;
    without a checkpoint the small model of the recipe `shapes-gligen` is used.

    Raises:
        InputError: If the folder is missing or its model has no box tokens.
    """

    kind = "gligen"

    def find_folder(self, checkpoint: Path | None) -> Path:
        """The checkpoint, or the shipped baseline.

        Raises:
            InputError: If it is missing or holds another model.
        """
        folder = pipeline_folder(
            checkpoint, shipped=GLIGEN_WEIGHTS, kinds=(INSTANCE_PIPELINE, GLIGEN_PIPELINE)
        )
        grounding_net(folder, "gligen")
        return folder

    def identity(self) -> Mapping[str, Any]:
        """That of the checkpoint, and how other locations become boxes."""
        rules = {"order": "box, mask, scribble, point", "point_side": POINT_SIDE, "min_side": MIN_SIDE}
        return {**super().identity(), "boxes": rules}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """As the reference model, with the Multi-Instance Sampler off unless it is asked for."""
        return super().resolve_sampling(replace(settings, mis=settings.mis or 0.0))

    def shown(self, request: GenerationRequest) -> frozenset[Condition]:
        """Boxes, whatever the benchmark shows; nothing if it shows nothing."""
        return frozenset({Condition.BOX}) if request.conditions else frozenset()

    def prompt(self, request: GenerationRequest, slots: int) -> tuple[GroundedPrompt, int]:
        """The layout as boxes."""
        from instbench.generators.prompts import to_prompt  # deferred: needs torch

        return to_prompt(as_boxes(request.layout, request.conditions), self.shown(request), slots)
