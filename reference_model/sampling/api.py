"""`sample`: latents from noise, text embeddings and grounding tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reference_model.sampling.alpha import Merge, alpha_schedule, check_merge, mis_steps
from reference_model.sampling.conditioning import (
    concatenate_grounding,
    normalise_grounding,
    select_grounding,
)
from reference_model.sampling.denoiser import (
    Denoiser,
    FastDenoiser,
    PlainDenoiser,
    default_unet_batch,
)
from reference_model.sampling.multi_instance_sampler import StepCallback, run_sampler
from reference_model.sampling.solvers import PlmsSolver, Solver
from reference_model.sampling.tokens import prepare_tokens
from reference_model.unifusion import FORMATS, resolve_keep

__all__ = ["regions_from_boxes", "sample"]

_TOKEN_ROWS = 4  # rows per UniFusion call: bounds the memory of the masks at segment size


def regions_from_boxes(boxes_xyxy: Tensor, height: int, width: int) -> Tensor:
    """Regions for crop-and-paste: corners truncated to cells as published, at least one cell each way.

    Args:
        boxes_xyxy: Relative boxes, float [I, 4]; a box without area gives an empty region.
        height: Rows of the latent.
        width: Columns of the latent.

    Returns:
        bool [I, height, width].
    """
    scale = boxes_xyxy.new_tensor([width, height, width, height])
    x0, y0, x1, y1 = (boxes_xyxy * scale).long().unbind(-1)
    x0, y0 = x0.clamp(0, width - 1), y0.clamp(0, height - 1)
    x1, y1 = torch.maximum(x1, x0 + 1), torch.maximum(y1, y0 + 1)
    rows = torch.arange(height, device=boxes_xyxy.device)
    columns = torch.arange(width, device=boxes_xyxy.device)
    in_rows = (rows >= y0[:, None]) & (rows < y1[:, None])
    in_columns = (columns >= x0[:, None]) & (columns < x1[:, None])
    area = (boxes_xyxy[:, 2] > boxes_xyxy[:, 0]) & (boxes_xyxy[:, 3] > boxes_xyxy[:, 1])
    return in_rows[:, :, None] & in_columns[:, None, :] & area[:, None, None]


def _instance_rows(
    batch: int, groundings: Sequence[Mapping[str, Any]], counts: Sequence[int] | None
) -> list[Tensor]:
    """Images that have an instance number k, for every k."""
    if counts is None:
        return [torch.arange(batch)] * len(groundings)
    if len(counts) != batch or max(counts, default=0) > len(groundings):
        raise ValueError(
            f"instance_counts: {list(counts)} does not fit {batch} images and {len(groundings)} groundings"
        )
    return [
        torch.tensor([i for i in range(batch) if counts[i] > k], dtype=torch.long)
        for k in range(len(groundings))
    ]


def _expand(context: Tensor, noise: Tensor, name: str) -> Tensor:
    batch = len(noise)
    context = torch.as_tensor(context).to(noise.device)
    context = context[None] if context.ndim == 2 else context
    if context.ndim != 3 or len(context) not in (1, batch):
        raise ValueError(f"{name}: shape {tuple(context.shape)} for {batch} images; expected [{batch}, L, D]")
    return context.expand(batch, -1, -1)


def _chain_table(
    grounding: Mapping[str, Any],
    instance_groundings: Sequence[Mapping[str, Any]],
    members: Sequence[Tensor],
    batch: int,
    *,
    masked: bool,
) -> dict[str, Any]:
    """Grounding of all chains, one row each."""
    parts = [normalise_grounding(grounding, batch)]
    for number, (each, rows) in enumerate(zip(instance_groundings, members, strict=False)):
        named = normalise_grounding(each, batch, name=f"instance_groundings[{number}]")
        parts.append(select_grounding(named, rows))
    if not masked:
        for part in parts:
            part.pop("instance_masks", None)
    return concatenate_grounding(parts)


@torch.no_grad()
def sample(
    unet: Any,
    noise: Tensor,
    context: Tensor,
    negative_context: Tensor | None = None,
    grounding: Mapping[str, Any] | None = None,
    *,
    instance_groundings: Sequence[Mapping[str, Any]] = (),
    instance_contexts: Sequence[Tensor] | Tensor = (),
    instance_counts: Sequence[int] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    alpha: float | Sequence[float] | None = 1.0,
    mis: float = 0.0,
    mis_merge: Merge = "average",
    keep: Sequence[str] = FORMATS,
    masked_attention: str | None = None,
    first_conv: nn.Conv2d | Mapping[str, Tensor] | None = None,
    schedule: Literal["plain", "fast"] = "fast",
    solver: Solver | None = None,
    max_unet_batch: int | None = None,
    callback: StepCallback | None = None,
) -> Tensor:
    """Samples latents; the result for an image does not depend on the others in the batch.

    Args:
        unet: The `InstanceUNet`, in eval mode.
        noise: [B, C, h, w] initial noise of unit variance.
        context: [B, L, D] text embeddings of the prompts.
        negative_context: [B, L, D] (or one row) of the unconditional branch; needed unless
            `guidance_scale` is 1.
        grounding: Tensors that `UniFusion` takes, with B rows, and optionally ``instance_masks``
            [B, N, h, w] for masked attention; arrays and single rows will do. None leaves the gated layers out
            (text only).
        instance_groundings: Per instance number a grounding of the same kind with B rows, whose only instance
            sits in slot 0; used by the Multi-Instance Sampler.
        instance_contexts: Per instance number the text embeddings of its phrase, [B, L, D] or [L, D].
        instance_counts: Instances per image where they differ; rows beyond are ignored.
        num_inference_steps: Steps asked for.
        guidance_scale: Classifier-free guidance weight; 1 switches guidance off.
        alpha: Share of the steps with grounding on, or ``(full, decay, off)``.
        mis: Share of the steps run by the Multi-Instance Sampler, in [0, 1).
        mis_merge: ``"average"`` (published) or ``"crop"``.
        keep: Location formats to keep.
        masked_attention: ``"none"``, ``"published"``, ``"correct"``; None takes the model's setting.
        first_conv: Weight and bias that replace the first convolution where alpha is 0 (never undone within
            a run, as published).
        schedule: ``"plain"``: one branch per UNet call and tokens in every call, as published. ``"fast"``:
            the same numbers, each thing computed once and branches batched.
        solver: A solver; None takes the published PLMS with Stable Diffusion's noise table.
        max_unet_batch: Most rows per UNet call (fast schedule); None chooses by latent size and device.
        callback: Called after each step of the global chain.

    Returns:
        float32 [B, C, h, w] latents.

    Raises:
        ValueError: If an argument is out of range or inputs do not fit together.
    """
    if schedule not in ("plain", "fast"):
        raise ValueError(f"schedule: {schedule!r} is unknown; choose from plain, fast")
    check_merge(mis_merge)
    if len(instance_groundings) != len(instance_contexts):
        raise ValueError(
            f"{len(instance_groundings)} instance_groundings but {len(instance_contexts)} instance_contexts; "
            "give one each"
        )
    if guidance_scale != 1 and negative_context is None:
        raise ValueError("negative_context: needed unless guidance_scale is 1")
    noise = torch.as_tensor(noise)
    keep = resolve_keep(keep)
    batch, device = len(noise), noise.device
    size = (noise.shape[-2], noise.shape[-1])
    solver = PlmsSolver(num_inference_steps) if solver is None else solver
    alphas = alpha_schedule(len(solver.timesteps), alpha)
    steps = mis_steps(len(solver.timesteps), mis)

    members = _instance_rows(batch, instance_groundings, instance_counts) if steps else []
    images = torch.cat([torch.arange(batch), *members]).to(device)
    contexts = [_expand(context, noise, "context")]
    for number, (text, rows) in enumerate(zip(instance_contexts, members, strict=False)):
        contexts.append(_expand(text, noise, f"instance_contexts[{number}]")[rows.to(device)])
    mode = unet.config.masked_attention if masked_attention is None else masked_attention
    table: dict[str, Any] | None = None
    if grounding is not None:
        table = _chain_table(grounding, instance_groundings, members, batch, masked=mode != "none")
    regions = None
    if mis_merge == "crop" and steps and table is not None:
        regions = regions_from_boxes(table["boxes"][batch:, 0], *size).to(device)

    shared: dict[str, Any] = {
        "context": torch.cat(contexts),
        "negative_context": _expand(
            context if negative_context is None else negative_context, noise, "negative_context"
        ),
        "images": images,
        "guidance_scale": guidance_scale,
        "first_conv": first_conv,
    }
    denoiser: Denoiser
    if schedule == "plain":
        denoiser = PlainDenoiser(
            unet, grounding=table, keep=keep, masked_attention=masked_attention, **shared
        )
    else:
        chunks = () if table is None else _row_chunks(table, len(images))
        tokens = prepare_tokens(
            unet, chunks, keep=keep, masked_attention=masked_attention, size=size, device=device
        )
        limit = default_unet_batch(*size, device) if max_unet_batch is None else max_unet_batch
        denoiser = FastDenoiser(unet, grounding=tokens, max_unet_batch=limit, **shared)
    return run_sampler(
        denoiser,
        solver,
        noise.float(),
        images,
        alphas=alphas,
        num_mis_steps=steps,
        regions=regions,
        callback=callback,
        sequential=schedule == "plain",
    )


def _row_chunks(table: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    return [
        select_grounding(table, slice(start, start + _TOKEN_ROWS)) for start in range(0, rows, _TOKEN_ROWS)
    ]
