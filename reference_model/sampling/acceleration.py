"""What the fast schedule does with one UNet call: faster linear layers, text keys and values computed ahead.

Nothing here changes the model: state dict, dtype, device and attention processors are the same before and
after, so saving, loading, offloading and adapters are not concerned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["OneDnnLinears", "TextCache", "is_compiled"]

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

    def _suits(self, x: Any, weight: Any, bias: Any) -> bool:
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
            if self._suits(args[0], args[1], bias):
                return self._product(args[0], args[1], bias, "none", [], "")
        return func(*args, **(kwargs or {}))


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
