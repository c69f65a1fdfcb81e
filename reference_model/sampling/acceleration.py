"""What the fast schedule does with one UNet call: faster linear layers, text keys and values computed ahead.

Nothing here changes the model: state dict, dtype, device and attention processors are the same before and
after, so saving, loading, offloading and adapters are not concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["FusedGates", "OneDnnLinears", "SharedStart", "TextCache", "is_compiled"]

_MIN_ROWS = 32  # below, preparing the weight costs more than the product


def is_compiled(unet: Any) -> bool:
    """Whether a UNet or a part of it runs through `torch.compile`, which does its own optimisation."""
    return hasattr(unet, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in unet.modules()
    )


class OneDnnLinears(TorchFunctionMode):
    """Sends the float32 linear layers of a CPU to oneDNN, the library of the convolutions.

    PyTorch multiplies float32 matrices with MKL, which on CPUs of other makers reaches about 90 GFLOP/s per
    core where oneDNN reaches over 200. The weights are read as they are, nothing is kept. Calls that record
    gradients, run under autocast, have another dtype or device, or are small go the usual way, as does
    everything where PyTorch lacks the operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self._product: Any = None
        if torch.backends.mkldnn.is_available():
            # The operator behind compiled CPU models; there is no public name for it.
            self._product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

    def suits(self, x: Any, weight: Any, bias: Any) -> bool:
        """Whether a linear layer goes to oneDNN."""
        if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or torch.is_grad_enabled():
            return False
        plain = type(x) is Tensor and type(weight) in (Tensor, nn.Parameter)
        floats = x.dtype == weight.dtype == torch.float32 and (bias is None or bias.dtype == torch.float32)
        return (
            plain
            and floats
            and x.device.type == weight.device.type == "cpu"
            and weight.ndim == 2
            and weight.is_contiguous()
            and x.numel() >= _MIN_ROWS * x.shape[-1]
            and not torch.is_autocast_enabled("cpu")
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces `linear` where it suits."""
        if func is F.linear and self._product is not None and not kwargs and len(args) in (2, 3):
            bias = args[2] if len(args) == 3 else None
            if self.suits(args[0], args[1], bias):
                return self._product(args[0], args[1], bias, "none", [], "")
        return func(*args, **(kwargs or {}))


@contextmanager
def _forwards(changes: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Within the block the modules run other functions than their own `forward`."""
    own: list[tuple[nn.Module, Any]] = []
    try:
        for module, function in changes:
            own.append((module, module.__dict__.get("forward")))
            module.forward = function
        yield
    finally:
        for module, before in reversed(own):
            if before is None:
                del module.forward
            else:  # a hook of another library
                module.forward = before


class FusedGates:
    """The gated activation of feed-forward layers, `a * gelu(b)`, inside oneDNN's two products.

    Saves two passes over the widest tensors of a UNet. Applies where `OneDnnLinears` does.

    Args:
        unet: The `InstanceUNet`.
        linears: Says which layers suit.
    """

    def __init__(self, unet: Any, linears: OneDnnLinears) -> None:
        operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        binary = getattr(operator, "binary", None)
        self._changes: list[tuple[nn.Module, Callable[..., Any]]] = []
        if not torch.backends.mkldnn.is_available() or binary is None:
            return
        for module in unet.modules():
            if type(module) is GEGLU:
                self._changes.append((module, _fused_gate(module, linears, operator, binary)))

    def use(self) -> AbstractContextManager[None]:
        """Within the block the layers are fused."""
        return _forwards(self._changes)


def _fused_gate(module: GEGLU, linears: OneDnnLinears, product: Any, times: Any) -> Callable[..., Any]:
    own = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight, bias = module.proj.weight, module.proj.bias
        if args or kwargs or bias is None or not linears.suits(x, weight, bias):
            result: Tensor = own(x, *args, **kwargs)
            return result
        half = weight.shape[0] // 2
        gate = product(x, weight[half:], bias[half:], "gelu", [], "none")
        fused: Tensor = times(x, gate, weight[:half], bias[:half], "mul")
        return fused

    return forward


class SharedStart:
    """The part of a UNet that depends on latents and time step alone: up to the first gated or cross-attention.

    Rows with the same latents (those with and without the condition, and all chains at the first evaluation) need
    it only once.

    Args:
        unet: The `InstanceUNet`.
    """

    def __init__(self, unet: Any) -> None:
        self._modules: list[nn.Module] = [unet.conv_in]
        for block in unet.down_blocks:
            attentions = getattr(block, "attentions", None) or ()
            if attentions:
                first, layers = attentions[0], attentions[0].transformer_blocks
                self._modules += [block.resnets[0], first.norm, first.proj_in]
                if not layers[0].only_cross_attention:
                    self._modules += [layers[0].norm1, layers[0].attn1]
                return
            self._modules += [*block.resnets, *(block.downsamplers or ())]

    def use(self, sources: Tensor) -> AbstractContextManager[None]:
        """Within the block rows of equal `sources` (int64 [B] on the CPU, ascending) share their start."""
        changed = torch.ones(len(sources), dtype=torch.bool)
        changed[1:] = sources[1:] != sources[:-1]
        if bool(changed.all()):
            return nullcontext()
        first, copies = changed.nonzero().flatten(), changed.cumsum(0) - 1
        return _forwards((module, _shared(module, first, copies)) for module in self._modules)


def _shared(module: nn.Module, first: Tensor, copies: Tensor) -> Callable[..., Any]:
    own = module.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        once: Tensor = own(x.index_select(0, first.to(x.device)), *args, **kwargs)
        return once.index_select(0, copies.to(x.device))

    return forward


class _CachedText:
    """Attention to text whose keys and values are known, `[B, heads, L, d_head]` each."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self._key = key
        self._value = value

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """As `AttnProcessor2_0` for `[B, P, C]` inputs without mask; the text itself is not read."""
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        out = F.scaled_dot_product_attention(query, self._key, self._value)
        result: Tensor = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        return result


def _cacheable(attn: Attention | None) -> bool:
    return (
        attn is not None
        and type(attn.processor) is AttnProcessor2_0
        and not attn.norm_cross
        and not attn.residual_connection
        and attn.rescale_output_factor == 1
        and all(part is None for part in (attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k))
    )


class TextCache:
    """Keys and values of some texts for every cross-attention layer of a UNet.

    Layers with an attention processor that is not diffusers' default one are left alone.

    Args:
        unet: The `InstanceUNet`.
        states: `[N, L, D]` text embeddings.
        budget: Most bytes for keys and values; beyond it nothing is cached.
    """

    def __init__(self, unet: Any, states: Tensor, budget: int) -> None:
        layers = [
            block.attn2
            for block in unet.modules()
            if isinstance(block, BasicTransformerBlock) and _cacheable(block.attn2)
        ]
        channels = sum(attn.to_k.out_features + attn.to_v.out_features for attn in layers)
        fits = states.shape[0] * states.shape[1] * channels * states.element_size() <= budget
        self._tables: list[tuple[Attention, Tensor, Tensor]] = []
        if not fits or is_compiled(unet):
            return
        for attn in layers:
            # With model offloading the weights may still wait on the CPU.
            text = states.to(attn.to_k.weight.device)
            key, value = (
                layer(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2).contiguous().to(states.device)
                for layer in (attn.to_k, attn.to_v)
            )
            self._tables.append((attn, key, value))

    @contextmanager
    def use(self, rows: Tensor) -> Iterator[None]:
        """Within the block the layers attend to the texts `rows` (int64 [B])."""
        own = [attn.processor for attn, _, _ in self._tables]
        try:
            for attn, key, value in self._tables:
                attn.processor = _CachedText(key.index_select(0, rows), value.index_select(0, rows))
            yield
        finally:
            for (attn, _, _), processor in zip(self._tables, own, strict=True):
                attn.processor = processor
