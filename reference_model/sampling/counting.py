"""How often the UNet will be called, without calling it.

The sampler itself runs, on latents of one cell and with a UNet that only counts; so what it counts is what a run
with the same settings does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from reference_model.parameters import SamplingParameters
from reference_model.sampling.alpha import alpha_schedule, mis_steps
from reference_model.sampling.denoiser import FastDenoiser
from reference_model.sampling.multi_instance_sampler import run_sampler
from reference_model.sampling.solvers import make_solver

__all__ = ["CallCount", "CallCounter"]


@dataclass(frozen=True, slots=True)
class CallCount:
    """What a batch of images asks of the UNet.

    Attributes:
        calls: Calls of the UNet.
        rows: Rows of those calls; they depend on the images alone, not on the batch or the bound.
    """

    calls: int
    rows: int


class CallCounter:
    """Counts UNet calls of the fast schedule.

    Args:
        scheduler: The diffusers scheduler of the pipeline.
        parameters: Sampling settings without gaps.
        max_unet_batch: Most rows per UNet call.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, scheduler: Any, parameters: SamplingParameters, max_unet_batch: int) -> None:
        self._solver = make_solver(scheduler, parameters.num_inference_steps)
        self._alphas = alpha_schedule(len(self._solver.timesteps), parameters.alpha)
        self._steps = mis_steps(len(self._solver.timesteps), parameters.mis)
        self._guidance = parameters.guidance_scale
        self._bound = max_unet_batch
        self._known: dict[tuple[int, int, int], CallCount] = {}

    def count(self, instances: Sequence[int]) -> CallCount:
        """What one call of the pipeline does.

        Args:
            instances: Instances that each image of the call shows to the model.

        Returns:
            The calls and their rows, if memory does not run out.
        """
        shown = [count for count in instances if count] if self._steps else []
        key = (len(instances), len(shown), sum(shown))
        if key not in self._known:
            self._known[key] = self._sample(*key)
        return self._known[key]

    @torch.no_grad()
    def _sample(self, batch: int, with_chains: int, chains: int) -> CallCount:
        # How the chains are spread over those images changes neither the calls nor their rows.
        owners = [*range(with_chains), *([0] * (chains - with_chains))]
        images = torch.tensor([*range(batch), *owners])
        text = torch.zeros(len(images), 1, 1)
        denoiser = FastDenoiser(
            _Counted(),
            context=text,
            negative_context=text[:batch],
            images=images,
            grounding=None,
            guidance_scale=self._guidance,
            max_unet_batch=self._bound,
        )
        run_sampler(
            denoiser,
            self._solver.fork(),
            torch.zeros(batch, 4, 1, 1),
            images,
            alphas=self._alphas,
            num_mis_steps=self._steps,
            generators=[torch.Generator() for _ in images],
        )
        return CallCount(denoiser.unet_calls, denoiser.unet_rows)


class _Counted(nn.Module):
    """Stands where the UNet is."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Identity()
        self.down_blocks = nn.ModuleList()

    def forward(self, latents: Tensor, *_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.zeros_like(latents))
