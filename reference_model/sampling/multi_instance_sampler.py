"""The Multi-Instance Sampler (MIS): chains for every instance first, then one chain for the image.

For the first share of the steps a global chain (all instances, the caption) and one chain per instance (that
instance alone, its phrase as prompt) run from the same noise. Then their latents are merged and the global
chain goes on with its own history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_model.sampling.denoiser import Denoiser, Request
from reference_model.sampling.solvers import Solver, SolverStep

__all__ = ["StepCallback", "merge_average", "merge_crop", "run_sampler"]

StepCallback = Callable[[int, Any, Tensor], Tensor | None]
"""Called after each step of the global chain with (step, timestep, latents); may return other latents."""


@dataclass
class _Group:
    """Chains that advance together."""

    rows: Tensor
    latents: Tensor
    solver: Solver


def merge_average(latents: Tensor, instance_latents: Tensor, images: Tensor) -> Tensor:
    """Mean over the global chain and all instance chains of each image (published default).

    Args:
        latents: [B, C, h, w] of the global chains.
        instance_latents: [I, C, h, w] of the instance chains.
        images: int64 [I], image of each instance chain.

    Returns:
        [B, C, h, w].
    """
    total = latents.index_add(0, images, instance_latents)
    counts = torch.ones(len(latents), device=latents.device, dtype=latents.dtype)
    counts = counts.index_add(0, images, torch.ones_like(images, dtype=latents.dtype))
    return total / counts.view(-1, 1, 1, 1)


def merge_crop(latents: Tensor, instance_latents: Tensor, images: Tensor, regions: Tensor) -> Tensor:
    """Pastes each instance chain's region into the global latents, in the order of the instances.

    This is the paper's crop-and-paste. The published code contains it switched off and with the axes
    exchanged; here rows are y and columns are x.

    Args:
        latents: [B, C, h, w] of the global chains.
        instance_latents: [I, C, h, w] of the instance chains.
        images: int64 [I], image of each instance chain.
        regions: bool [I, h, w].

    Returns:
        [B, C, h, w].
    """
    merged = latents.clone()
    for source, image, region in zip(instance_latents, images.tolist(), regions, strict=True):
        merged[image] = torch.where(region, source, merged[image])
    return merged


def _advance(
    denoiser: Denoiser, groups: Sequence[_Group], index: int, alpha: float, swapped: Sequence[bool]
) -> None:
    """One step of all groups in lock step; every round of evaluations is one call of the denoiser."""
    steps: list[SolverStep] = [group.solver.step(group.latents, index) for group in groups]
    asked = [next(step) for step in steps]
    shared = index == 0
    while True:
        requests = [
            Request(latents, timestep, group.rows, alpha, swap, shared)
            for (latents, timestep), group, swap in zip(asked, groups, swapped, strict=True)
        ]
        asked = []
        for group, step, output in zip(groups, steps, denoiser(requests), strict=True):
            try:
                asked.append(step.send(output))
            except StopIteration as finished:
                group.latents = finished.value
        if not asked:
            return
        shared = False  # a second evaluation starts from latents that have already moved apart


def _instance_groups(
    noise: Tensor,
    images: Tensor,
    solver: Solver,
    generators: list[torch.Generator] | None,
    *,
    sequential: bool,
) -> list[_Group]:
    """The instance chains: one group, or (plain schedule) one group per instance number."""
    batch = len(noise)
    rows = torch.arange(batch, len(images), device=noise.device)
    if not len(rows):
        return []
    parts = [rows]
    if sequential:
        seen: dict[int, int] = {}
        number = []
        for image in images[batch:].tolist():
            number.append(seen.get(image, 0))
            seen[image] = number[-1] + 1
        order = torch.tensor(number, device=rows.device)
        parts = [rows[order == value] for value in range(max(number) + 1)]
    groups = []
    for part in parts:
        chosen = None if generators is None else [generators[row] for row in part.tolist()]
        groups.append(_Group(part, noise[images[part]].clone(), solver.fork(chosen)))
    return groups


def _merged(latents: Tensor, groups: Sequence[_Group], images: Tensor, regions: Tensor | None) -> Tensor:
    """Global latents after the merge: cropped and pasted if there are regions, else averaged."""
    rows = torch.cat([group.rows for group in groups])
    order = rows.argsort()
    sources = torch.cat([group.latents for group in groups])[order]
    owners = images[rows[order]]
    if regions is None:
        return merge_average(latents, sources, owners)
    return merge_crop(latents, sources, owners, regions)


def run_sampler(
    denoiser: Denoiser,
    solver: Solver,
    noise: Tensor,
    images: Tensor,
    *,
    alphas: Sequence[float],
    num_mis_steps: int = 0,
    regions: Tensor | None = None,
    generators: list[torch.Generator] | None = None,
    callback: StepCallback | None = None,
    sequential: bool = False,
) -> Tensor:
    """Samples latents from noise.

    As published, the swap of the first convolution at alpha 0 is never undone within a run: an instance chain
    starts with the swapped one if the chains before it reached alpha 0 (harmless with the published weights,
    whose training froze that convolution).

    Args:
        denoiser: Gives guided outputs; rows 0..B-1 of its tables are the global chains.
        solver: Solver without history.
        noise: float32 [B, C, h, w] of unit variance.
        images: int64 [B + I], image of every chain; the first B are 0..B-1.
        alphas: Grounding scale per step of the solver.
        num_mis_steps: Steps of the Multi-Instance Sampler.
        regions: bool [I, h, w] for crop-and-paste (described in the paper); None averages (published).
        generators: One generator per chain, for solvers that add noise.
        callback: See `StepCallback`.
        sequential: Run one instance chain after another (plain schedule).

    Returns:
        float32 [B, C, h, w].
    """
    batch = len(noise)
    start = noise * solver.initial_scale
    chosen = None if generators is None else generators[:batch]
    whole = _Group(torch.arange(batch, device=noise.device), start, solver.fork(chosen))
    timesteps = solver.timesteps
    swapped = [0 in alphas[: index + 1] for index in range(len(alphas))]
    instances = (
        _instance_groups(start, images, solver, generators, sequential=sequential) if num_mis_steps else []
    )
    late = 0 in alphas[:num_mis_steps]

    def report(index: int) -> None:
        if callback is not None:
            changed = callback(index, timesteps[index], whole.latents)
            whole.latents = whole.latents if changed is None else changed

    for index in range(num_mis_steps):
        together = [whole] if sequential else [whole, *instances]
        _advance(denoiser, together, index, alphas[index], [swapped[index], late][: len(together)])
        report(index)
    if sequential:
        for group in instances:
            for index in range(num_mis_steps):
                _advance(denoiser, [group], index, alphas[index], [late])
    if instances:
        whole.latents = _merged(whole.latents, instances, images, regions)
    for index in range(num_mis_steps, len(timesteps)):
        _advance(denoiser, [whole], index, alphas[index], [swapped[index]])
        report(index)
    return whole.latents
