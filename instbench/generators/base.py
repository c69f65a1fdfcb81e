"""The contract of a generator: layouts in, images out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from instbench.layouts.types import Condition, Layout

__all__ = ["GeneratedImage", "GenerationRequest", "Generator", "SamplingSettings"]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Sampling settings of a run; None means the generator's own recommended value.

    Attributes:
        num_inference_steps: Sampler steps.
        guidance_scale: Classifier-free guidance weight.
        alpha: Share of the steps with grounding on, in [0, 1].
        mis: Share of the steps run by the Multi-Instance Sampler, in [0, 1).
        negative_prompt: Prompt of the unconditional branch.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    alpha: float | None = None
    mis: float | None = None
    negative_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One image to make.

    Attributes:
        layout: Layout restricted to the benchmark's conditions; withheld formats are None.
        conditions: The conditions that the benchmark allows.
        seed: Seed of this image; the initial noise is drawn from it on the CPU.
        canvas_size: Width and height of the square canvas in pixels.
        sampling: Sampling settings.
    """

    layout: Layout
    conditions: frozenset[Condition]
    seed: int
    canvas_size: int
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One finished image (RGB, `canvas_size` square).

    Attributes:
        image_key: Key of the layout that it answers.
        image: The picture.
        info: Small JSON-able facts (UNet calls, truncated phrases, dropped instances, seconds).
    """

    image_key: str
    image: Image.Image
    info: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Generator(Protocol):
    """Makes images from layouts. The result for a request never depends on the others."""

    conditions: frozenset[Condition]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one image per request, in any order."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything that can change an output: kind, weights' SHA-256, resolved settings."""
        ...

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Fills in the recommended values where a setting is None."""
        ...
