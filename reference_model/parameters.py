"""Sampling settings of a checkpoint; free of torch, so that planning a run stays light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["SamplingParameters", "check_defaults", "resolve_parameters"]


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Sampling settings without gaps; the defaults are the published ones.

    Attributes:
        num_inference_steps: Sampler steps.
        guidance_scale: Classifier-free guidance weight.
        alpha: Share of the steps with grounding on, or ``(full, decay, off)``.
        mis: Share of the steps run by the Multi-Instance Sampler, in [0, 1).
        negative_prompt: Prompt of the unconditional branch.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    alpha: float | tuple[float, ...] = 1.0
    mis: float = 0.36
    negative_prompt: str = ""


def check_defaults(sampling_defaults: Mapping[str, Any]) -> None:
    """Checks the names in a checkpoint's recommended settings.

    Raises:
        ValueError: If a name is not a field of `SamplingParameters`.
    """
    known = [field.name for field in fields(SamplingParameters)]
    unknown = sorted(set(sampling_defaults) - set(known))
    if unknown:
        raise ValueError(f"sampling_defaults: {unknown[0]!r} is unknown; choose from {', '.join(known)}")


def resolve_parameters(sampling_defaults: Mapping[str, Any], given: Mapping[str, Any]) -> SamplingParameters:
    """Fills settings that are None with the checkpoint's recommendation, else the published value.

    Args:
        sampling_defaults: The checkpoint's recommendation, possibly empty.
        given: Settings asked for; None means not asked for.

    Returns:
        The settings.

    Raises:
        ValueError: If a name is unknown.
    """
    chosen = dict(sampling_defaults)
    chosen.update((key, value) for key, value in given.items() if value is not None)
    check_defaults(chosen)
    if isinstance(chosen.get("alpha"), list):
        chosen["alpha"] = tuple(chosen["alpha"])
    return SamplingParameters(**chosen)
