"""Guided model outputs for groups of latents: the plain schedule and the fast one.

Both take the same requests and give the same numbers within float rounding. The plain schedule does what the
published code does: one branch per UNet call and the grounding tokens in every call. The fast schedule
evaluates tokens and texts (and their keys and values) once per run, leaves out tokens that nobody sees and
batches all branches of all images.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reference_model.gated_attention import GatedSelfAttention, Grounding
from reference_model.sampling.acceleration import (
    FusedGates,
    OneDnnLinears,
    SharedStart,
    TextCache,
    is_compiled,
)
from reference_model.sampling.conditioning import null_grounding, select_grounding

__all__ = ["Denoiser", "FastDenoiser", "PlainDenoiser", "Request", "default_unet_batch", "prepare_tokens"]

_PROJECTION_BUDGET_BYTES = 256 * 2**20
_MASK_BUDGET_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Request:
    """One evaluation of a group of chains.

    Attributes:
        latents: float32 [R, C, h, w].
        timestep: A number or scalar tensor, the same for all rows.
        rows: int64 [R], rows of the conditioning tables.
        alpha: Grounding scale of this step.
        swapped: Whether the first convolution is replaced.
        shared_start: Whether all chains of an image still have the same latents.
    """

    latents: Tensor
    timestep: Any
    rows: Tensor
    alpha: float
    swapped: bool = False
    shared_start: bool = False


class Denoiser(Protocol):
    """Gives guided model outputs."""

    unet_calls: int

    def __call__(self, requests: Sequence[Request]) -> list[Tensor]:
        """Guided output float32 [R, C, h, w] per request; all requests are at the same step."""
        ...


def default_unet_batch(height: int, width: int, device: torch.device | str) -> int:
    """Rows per UNet call that keep activations within the memory of one full-size branch or a usual GPU.

    Args:
        height: Rows of the latent.
        width: Columns of the latent.
        device: Where the UNet runs.

    Returns:
        Batch size: 32 for 16x16 latents and 2 for 64x64 on the CPU; 32 for 64x64 on an accelerator.
    """
    cells = 8192 if torch.device(device).type == "cpu" else 131_072
    return max(2, min(64 if cells > 8192 else 32, cells // (height * width)))


class _Swap:
    """Replaces the UNet's first convolution for some calls (and always puts it back)."""

    def __init__(self, unet: Any, first_conv: nn.Conv2d | Mapping[str, Tensor] | None) -> None:
        self._unet = unet
        self._conv: nn.Module | None = None
        if first_conv is not None:
            state = first_conv.state_dict() if isinstance(first_conv, nn.Module) else dict(first_conv)
            own = unet.conv_in.state_dict()
            if {name: value.shape for name, value in state.items()} != {k: v.shape for k, v in own.items()}:
                raise ValueError(
                    f"first_conv: needs {', '.join(f'{k} {tuple(v.shape)}' for k, v in own.items())}, "
                    f"not {', '.join(f'{k} {tuple(v.shape)}' for k, v in state.items()) or 'nothing'}"
                )
            self._conv = copy.deepcopy(unet.conv_in)
            self._conv.load_state_dict(state)

    @contextmanager
    def __call__(self, swapped: bool) -> Iterator[None]:
        if not swapped or self._conv is None:
            yield
            return
        own = self._unet.conv_in
        self._unet.conv_in = self._conv.to(own.weight.device)
        try:
            yield
        finally:
            self._unet.conv_in = own


def _guide(conditional: Tensor, unconditional: Tensor | None, scale: float) -> Tensor:
    if unconditional is None:
        return conditional
    return unconditional + scale * (conditional - unconditional)


def _as_timestep(timestep: Any, device: torch.device) -> Tensor:
    return torch.as_tensor(timestep, device=device)


class PlainDenoiser:
    """One branch per UNet call, grounding tokens in every call, gated layers even at scale 0.

    Args:
        unet: The `InstanceUNet`.
        context: [R, L, D] text embeddings of the chains.
        negative_context: [B, L, D] text embeddings of the unconditional branch.
        images: int64 [R], image of each chain.
        grounding: Grounding tensors with R rows, or None to leave the gated layers out.
        guidance_scale: Guidance weight; 1 switches the unconditional branch off.
        keep: Formats to keep.
        masked_attention: Mode of instance-masked attention; None takes the model's.
        first_conv: Replacement of the first convolution where alpha is 0.
    """

    def __init__(
        self,
        unet: Any,
        *,
        context: Tensor,
        negative_context: Tensor,
        images: Tensor,
        grounding: Mapping[str, Any] | None,
        guidance_scale: float,
        keep: Sequence[str],
        masked_attention: str | None = None,
        first_conv: nn.Conv2d | Mapping[str, Tensor] | None = None,
    ) -> None:
        self._unet = unet
        self._context = context.to(unet.dtype)
        self._negative = negative_context.to(unet.dtype)
        self._images = images
        self._grounding = grounding
        self._guidance = guidance_scale
        self._keep = tuple(keep)
        self._masked_attention = masked_attention
        self._swap = _Swap(unet, first_conv)
        self.unet_calls = 0

    def _branch(self, request: Request, context: Tensor, grounding: Mapping[str, Any] | None) -> Tensor:
        extra: dict[str, Any] = {}
        if grounding is not None:
            device = request.latents.device
            tensors = _to(grounding, self._unet.conv_in.weight.device, self._unet.dtype)
            where = tensors.pop("instance_masks", None)
            extra["instance_masks"] = None if where is None else where.to(device)
            extra["grounding_tokens"] = self._unet.position_net(**tensors, keep=self._keep).to(device)
            # A tensor keeps the gated layers running at scale 0, as the published code does.
            extra["grounding_scale"] = torch.tensor(request.alpha, device=device)
            extra["masked_attention"] = self._masked_attention
            extra["keep"] = self._keep
        self.unet_calls += 1
        output = self._unet(
            request.latents.to(self._unet.dtype),
            _as_timestep(request.timestep, request.latents.device),
            context,
            **extra,
        ).sample
        return output.float()

    def __call__(self, requests: Sequence[Request]) -> list[Tensor]:
        """Guided outputs, one branch after another."""
        outputs = []
        for request in requests:
            with self._swap(request.swapped):
                own = None if self._grounding is None else select_grounding(self._grounding, request.rows)
                conditional = self._branch(request, self._context[request.rows], own)
                unconditional = None
                if self._guidance != 1:
                    null = (
                        None
                        if self._grounding is None
                        else null_grounding(self._grounding, len(request.rows))
                    )
                    unconditional = self._branch(request, self._negative[self._images[request.rows]], null)
            outputs.append(_guide(conditional, unconditional, self._guidance))
        return outputs


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
        tensors = _to(chunk, home, unet.dtype)
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
    if table.shape[0] * table.shape[1] * per_token > _PROJECTION_BUDGET_BYTES:
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


def _to(grounding: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: _to(value, device, dtype)
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


class FastDenoiser:
    """All branches of all images in UNet batches of bounded size; every token and text is computed once.

    Keys and values of each distinct text are computed once per run, and linear layers in float32 on a CPU go
    to oneDNN (see `reference_model.sampling.acceleration`); a compiled UNet is called as it is. Where chains
    of one image still share their latents (the first evaluation), the unconditional branch is evaluated once
    per image. At alpha 0 the gated layers are skipped.

    Args:
        unet: The `InstanceUNet`.
        context: [R, L, D] text embeddings of the chains.
        negative_context: [B, L, D] text embeddings of the unconditional branch.
        images: int64 [R], image of each chain.
        grounding: R + 1 rows from `prepare_tokens`, or None to leave the gated layers out.
        guidance_scale: Guidance weight; 1 switches the unconditional branch off.
        max_unet_batch: Most rows per UNet call.
        first_conv: Replacement of the first convolution where alpha is 0.

    Raises:
        ValueError: If `max_unet_batch` is below 1.
    """

    def __init__(
        self,
        unet: Any,
        *,
        context: Tensor,
        negative_context: Tensor,
        images: Tensor,
        grounding: Grounding | None,
        guidance_scale: float,
        max_unet_batch: int,
        first_conv: nn.Conv2d | Mapping[str, Tensor] | None = None,
    ) -> None:
        if max_unet_batch < 1:
            raise ValueError(f"max_unet_batch: {max_unet_batch} is below 1")
        self._unet = unet
        texts = torch.cat((context, negative_context)) if guidance_scale != 1 else context
        self._texts, self._text_rows = torch.unique(texts.to(unet.dtype), dim=0, return_inverse=True)
        self._linears = self._gates = self._start = None
        if not is_compiled(unet):
            self._linears = OneDnnLinears()
            self._gates = FusedGates(unet, self._linears)
            self._start = SharedStart(unet)
        self._text_cache = TextCache(unet, self._texts, _PROJECTION_BUDGET_BYTES)
        self._images = images
        self._grounding = grounding
        self._guidance = guidance_scale
        self._max_batch = max_unet_batch
        self._swap = _Swap(unet, first_conv)
        self._null_row = len(images)
        self.unet_calls = 0

    def _evaluate(
        self, latents: Tensor, timestep: Any, texts: Tensor, rows: Tensor, alpha: float, sources: Tensor
    ) -> Tensor:
        """Model outputs of any number of rows, in chunks of equal size.

        Args:
            latents: [N, C, h, w].
            timestep: The same for all rows.
            texts: int64 [N], rows of the texts.
            rows: int64 [N], rows of the grounding.
            alpha: Grounding scale.
            sources: int64 [N] on the CPU; rows of equal numbers have equal latents.
        """
        # Side by side, rows of equal latents share a chunk, and in it all that does not depend on their condition.
        order = sources.argsort(stable=True)
        count = -(-len(rows) // self._max_batch)
        outputs = []
        step = _as_timestep(timestep, latents.device)
        for chosen in order.tensor_split(count):
            part = chosen.to(rows.device)
            extra: dict[str, Any] = {}
            if self._grounding is not None and alpha != 0:
                extra = {"grounding_tokens": self._grounding.select(rows[part]), "grounding_scale": alpha}
            self.unet_calls += 1
            with ExitStack() as stack:
                stack.enter_context(self._text_cache.use(texts[part]))
                if self._linears is not None and self._gates is not None and self._start is not None:
                    stack.enter_context(self._gates.use())
                    stack.enter_context(self._start.use(sources[chosen]))
                    stack.enter_context(self._linears)
                output = self._unet(latents[part], step, self._texts[texts[part]], **extra).sample
            outputs.append(output.float())
        return torch.cat(outputs)[order.argsort().to(latents.device)]

    def _group(self, requests: Sequence[Request]) -> list[Tensor]:
        """Guided outputs of requests that agree on the first convolution."""
        latents = torch.cat([request.latents for request in requests]).to(self._unet.dtype)
        rows = torch.cat([request.rows for request in requests])
        texts, index = self._text_rows[rows], rows
        picked = inverse = torch.arange(len(rows), device=rows.device)
        images = self._images[rows]
        sources = images.cpu() if requests[0].shared_start else torch.arange(len(rows))
        if self._guidance != 1:
            if requests[0].shared_start:
                unique, inverse = torch.unique(images, return_inverse=True)
                picked = torch.stack([(images == image).nonzero()[0, 0] for image in unique])
            sources = torch.cat((sources, sources[picked.cpu()] if requests[0].shared_start else sources))
            latents = torch.cat((latents, latents[picked]))
            texts = torch.cat((texts, self._text_rows[self._null_row + images[picked]]))
            index = torch.cat((rows, torch.full_like(picked, self._null_row)))
        output = self._evaluate(latents, requests[0].timestep, texts, index, requests[0].alpha, sources)
        conditional, unconditional = output[: len(rows)], output[len(rows) :]
        guided = _guide(conditional, unconditional[inverse] if len(unconditional) else None, self._guidance)
        return list(guided.split([len(request.rows) for request in requests]))

    def __call__(self, requests: Sequence[Request]) -> list[Tensor]:
        """Guided outputs, all requests of one first convolution together."""
        outputs: dict[int, Tensor] = {}
        for swapped in (False, True):
            chosen = [place for place, request in enumerate(requests) if request.swapped is swapped]
            if chosen:
                with self._swap(swapped):
                    parts = self._group([requests[place] for place in chosen])
                outputs.update(zip(chosen, parts, strict=True))
        return [outputs[place] for place in range(len(requests))]
