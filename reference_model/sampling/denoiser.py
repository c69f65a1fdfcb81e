"""Guided model outputs for groups of latents: the plain schedule and the fast one.

Both take the same requests and give the same numbers within float rounding. The plain schedule does what the
published code does: one branch per UNet call and the grounding tokens in every call. The fast schedule
evaluates tokens and texts (and their keys and values) once per run, leaves out tokens that nobody sees and
batches all branches of all images.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reference_model.gated_attention import Grounding
from reference_model.memory import is_out_of_memory, release_memory
from reference_model.sampling.acceleration import (
    FusedGates,
    OneDnnLinears,
    SharedStart,
    TextCache,
    is_compiled,
)
from reference_model.sampling.conditioning import null_grounding, select_grounding
from reference_model.sampling.tokens import PROJECTION_BUDGET_BYTES, move_tensors

__all__ = ["Denoiser", "FastDenoiser", "PlainDenoiser", "Request", "default_unet_batch"]

logger = logging.getLogger(__name__)


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
    """Gives guided model outputs; counts the UNet's calls and their rows."""

    unet_calls: int
    unet_rows: int

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
        self.unet_calls = self.unet_rows = 0

    def _branch(self, request: Request, context: Tensor, grounding: Mapping[str, Any] | None) -> Tensor:
        extra: dict[str, Any] = {}
        if grounding is not None:
            device = request.latents.device
            tensors = move_tensors(grounding, self._unet.conv_in.weight.device, self._unet.dtype)
            where = tensors.pop("instance_masks", None)
            extra["instance_masks"] = None if where is None else where.to(device)
            extra["grounding_tokens"] = self._unet.position_net(**tensors, keep=self._keep).to(device)
            # A tensor keeps the gated layers running at scale 0, as the published code does.
            extra["grounding_scale"] = torch.tensor(request.alpha, device=device)
            extra["masked_attention"] = self._masked_attention
            extra["keep"] = self._keep
        self.unet_calls += 1
        self.unet_rows += len(request.latents)
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


class FastDenoiser:
    """All branches of all images in UNet batches of bounded size; every token and text is computed once.

    Keys and values of each distinct text are computed once per run, and linear layers in float32 on a CPU go
    to oneDNN (see `reference_model.sampling.acceleration`); a compiled UNet is called as it is. Where chains
    of one image still share their latents (the first evaluation), the unconditional branch is evaluated once
    per image. At alpha 0 the gated layers are skipped. A UNet call that runs out of memory is made again with
    half of its rows, and the bound stays there; a single row that does not fit is an error.

    Attributes:
        unet_calls: UNet calls that were made; those that ran out of memory do not count.
        unet_rows: Rows of those calls. Unlike the calls they do not depend on the bound.
        max_unet_batch: Most rows per UNet call now.

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
        self._text_cache = TextCache(unet, self._texts, PROJECTION_BUDGET_BYTES)
        self._images = images
        self._grounding = grounding
        self._guidance = guidance_scale
        self.max_unet_batch = max_unet_batch
        self._swap = _Swap(unet, first_conv)
        self._null_row = len(images)
        self.unet_calls = self.unet_rows = 0

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
        step = _as_timestep(timestep, latents.device)
        outputs: list[Tensor] = []
        waiting = list(order.tensor_split(self._calls_for(len(rows))))
        while waiting:
            chosen = waiting[0]
            part = chosen.to(rows.device)
            output = self._attempt(latents[part], step, texts[part], rows[part], alpha, sources[chosen])
            if output is None:  # the bound is smaller now
                waiting = [piece for one in waiting for piece in one.tensor_split(self._calls_for(len(one)))]
                continue
            outputs.append(output)
            del waiting[0]
        return torch.cat(outputs)[order.argsort().to(latents.device)]

    def _calls_for(self, rows: int) -> int:
        return -(-rows // self.max_unet_batch)

    def _attempt(
        self, latents: Tensor, step: Tensor, texts: Tensor, rows: Tensor, alpha: float, sources: Tensor
    ) -> Tensor | None:
        """One UNet call; None if it ran out of memory, with the bound halved."""
        try:
            output = self._call(latents, step, texts, rows, alpha, sources)
        except Exception as error:
            if len(latents) == 1 or not is_out_of_memory(error):
                raise
        else:
            self.unet_calls += 1
            self.unet_rows += len(latents)
            return output
        release_memory()
        self.max_unet_batch = len(latents) // 2
        logger.warning(
            "out of memory with %d rows in a UNet call; going on with %d", len(latents), self.max_unet_batch
        )
        return None

    def _call(
        self, latents: Tensor, step: Tensor, texts: Tensor, rows: Tensor, alpha: float, sources: Tensor
    ) -> Tensor:
        extra: dict[str, Any] = {}
        if self._grounding is not None and alpha != 0:
            extra = {"grounding_tokens": self._grounding.select(rows), "grounding_scale": alpha}
        with ExitStack() as stack:
            stack.enter_context(self._text_cache.use(texts))
            if self._linears is not None and self._gates is not None and self._start is not None:
                stack.enter_context(self._gates.use())
                stack.enter_context(self._start.use(sources))
                stack.enter_context(self._linears)
            output: Tensor = self._unet(latents, step, self._texts[texts], **extra).sample
        return output.float()

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
