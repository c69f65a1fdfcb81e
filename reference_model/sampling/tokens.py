"""Grounding of all chains of a run, made once: tokens, their keys and values, and attention masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reference_model.gated_attention import GatedSelfAttention, Grounding
from reference_model.sampling.acceleration import OneDnnLinears
from reference_model.sampling.conditioning import null_grounding

__all__ = ["PROJECTION_BUDGET_BYTES", "drop_unseen_tokens", "move_tensors", "prepare_tokens"]

PROJECTION_BUDGET_BYTES = 256 * 2**20
"""Most memory for keys and values that are kept over the steps."""
_MASK_BUDGET_BYTES = 128 * 2**20


def prepare_tokens(
    unet: Any,
    chunks: Iterable[Mapping[str, Any]],
    *,
    keep: Sequence[str],
    masked_attention: str | None,
    size: tuple[int, int],
    device: torch.device,
) -> Grounding | None:
    """Grounding of all chains and, as its last row, of the unconditional branch.

    Args:
        unet: The `InstanceUNet`.
        chunks: Grounding tensors of some chains each, in row order; made lazily, because masks at segment
            size take about 31 MB per chain at full size.
        keep: Formats to keep.
        masked_attention: Mode of instance-masked attention; None takes the model's.
        size: Rows and columns of the latent.
        device: Where sampling runs.

    Returns:
        R + 1 rows on `device`, or None if there are no chunks. Attention masks of the unconditional branch
        are those of a canvas without instances.
    """
    mode = unet.config.masked_attention if masked_attention is None else masked_attention
    # With model offloading the weights may still wait on the CPU; then the tokens are made there.
    home = unet.conv_in.weight.device
    tokens: list[Tensor] = []
    places: list[Tensor] = []
    null: Mapping[str, Any] | None = None
    for chunk in chunks:
        tensors = move_tensors(chunk, home, unet.dtype)
        where = tensors.pop("instance_masks", None)
        if where is not None and mode != "none":
            places.append(where)
        with OneDnnLinears():
            tokens.append(unet.position_net(**tensors, keep=tuple(keep)))
        if null is None:
            null = null_grounding({k: v for k, v in tensors.items() if k != "segs"})
    if null is None:
        return None
    tokens.append(unet.position_net(**null, keep=tuple(keep)))
    table = torch.cat(tokens)
    masks = torch.cat([*places, torch.zeros_like(places[0][:1])]) if places else None
    prepared: Grounding = unet.prepare_grounding(
        table, size=size, instance_masks=masks, masked_attention=mode, keep=tuple(keep)
    )
    if mode == "correct":  # the mode that masks every level
        prepared = drop_unseen_tokens(prepared)
    return _grounding_to(_additive_masks(_projected(unet, prepared)), device)


def drop_unseen_tokens(grounding: Grounding) -> Grounding:
    """Grounding without the tokens that no visual token of any row sees at any level.

    Those are mostly the tokens of empty slots. Attention gives them weight 0, so nothing changes.

    Args:
        grounding: Grounding whose masks cover every level with gated layers, nothing projected yet.

    Returns:
        The same grounding with fewer tokens; the same object if there are no masks.
    """
    seen: Tensor | None = None
    for size, mask in grounding.attention_masks.items():
        level = mask[..., size:].flatten(0, 2).any(dim=0)
        seen = level if seen is None else seen | level
    if seen is None:
        return grounding
    kept = seen.nonzero().flatten()
    return replace(
        grounding,
        tokens=grounding.tokens[:, kept],
        attention_masks={
            size: torch.cat((mask[..., :size], mask[..., size + kept]), dim=-1)
            for size, mask in grounding.attention_masks.items()
        },
    )


def _projected(unet: Any, grounding: Grounding) -> Grounding:
    """Grounding with the keys and values of every gated layer, if they are not too large to keep."""
    gated = [module for module in unet.modules() if isinstance(module, GatedSelfAttention)]
    table = grounding.tokens
    per_token = sum(2 * module.attn.to_k.out_features for module in gated) * table.element_size()
    if table.shape[0] * table.shape[1] * per_token > PROJECTION_BUDGET_BYTES:
        return grounding
    with OneDnnLinears():
        return replace(grounding, projected={module.name: module.project_tokens(table) for module in gated})


def _additive_masks(grounding: Grounding) -> Grounding:
    """Boolean masks as numbers to add, which attention would else make in every layer of every call."""
    dtype = grounding.tokens.dtype
    count = sum(mask.numel() for mask in grounding.attention_masks.values())
    if not count or count * grounding.tokens.element_size() > _MASK_BUDGET_BYTES:
        return grounding
    return replace(
        grounding,
        attention_masks={
            size: torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
            for size, mask in grounding.attention_masks.items()
        },
    )


def move_tensors(grounding: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Nested tensors on a device, those of floats in a type."""
    return {
        name: move_tensors(value, device, dtype)
        if isinstance(value, Mapping)
        else value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        for name, value in grounding.items()
    }


def _grounding_to(grounding: Grounding, device: torch.device) -> Grounding:
    return Grounding(
        tokens=grounding.tokens.to(device),
        scale=grounding.scale,
        attention_masks={size: mask.to(device) for size, mask in grounding.attention_masks.items()},
        projected={
            name: (key.to(device), value.to(device)) for name, (key, value) in grounding.projected.items()
        },
    )
