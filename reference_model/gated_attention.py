"""Gated self-attention: the layer through which grounding tokens reach the image features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from diffusers.models.attention import GatedSelfAttentionDense
from torch import Tensor

__all__ = ["GatedSelfAttention", "Grounding"]


@dataclass(frozen=True)
class Grounding:
    """What the gated layers of one batch need.

    Attributes:
        tokens: `[B, T, C]` grounding tokens.
        scale: Factor of both residual branches: a number, or `[B]` for one per sample. The number 0
            switches the layers off without computing them.
        attention_masks: Masks `[B, 1, P, P + T]` keyed by the number P of visual tokens: bool (True = may
            see), or numbers in the dtype of the tokens that are added to the scores (0 or -inf). A level
            without an entry is not masked.
        projected: Keys and values of the tokens per layer name, if they were computed ahead.
    """

    tokens: Tensor
    scale: float | Tensor = 1.0
    attention_masks: Mapping[int, Tensor] = field(default_factory=dict)
    projected: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def with_scale(self, scale: float | Tensor) -> Grounding:
        """The same grounding with another scale."""
        return replace(self, scale=scale)

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> Grounding:
        """The grounding on another device, in another floating dtype (boolean masks stay boolean)."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device or tensor.device, dtype=dtype, non_blocking=non_blocking)

        return Grounding(
            tokens=move(self.tokens),
            scale=move(self.scale) if isinstance(self.scale, Tensor) else self.scale,
            attention_masks={
                size: mask.to(device=device, non_blocking=non_blocking)
                if mask.dtype == torch.bool
                else move(mask)
                for size, mask in self.attention_masks.items()
            },
            projected={name: (move(key), move(value)) for name, (key, value) in self.projected.items()},
        )

    def select(self, index: Tensor | slice) -> Grounding:
        """The grounding of some samples of the batch, in the order of `index` (repeats allowed)."""

        def rows(table: Tensor) -> Tensor:
            # Copies whole rows, several times as fast as indexing with a tensor.
            return table[index] if isinstance(index, slice) else table.index_select(0, index)

        scale = self.scale
        return Grounding(
            tokens=rows(self.tokens),
            scale=rows(scale) if isinstance(scale, Tensor) and scale.ndim else scale,
            attention_masks={size: rows(mask) for size, mask in self.attention_masks.items()},
            projected={name: (rows(key), rows(value)) for name, (key, value) in self.projected.items()},
        )


class GatedSelfAttention(GatedSelfAttentionDense):
    """Self-attention over visual and grounding tokens, gated by two learned scalars that start at 0.

    `x + scale * tanh(alpha_attn) * attn(norm1([x, linear(tokens)]))[:, :P]`, then
    `x + scale * tanh(alpha_dense) * ff(norm2(x))`. Only visual tokens ask: the outputs of the grounding
    tokens are dropped by the published layer, so leaving them out changes nothing.

    Args:
        query_dim: Channels of the visual tokens.
        context_dim: Channels of the grounding tokens.
        n_heads: Attention heads.
        d_head: Channels per head.
        name: Key under which `Grounding.projected` holds the keys and values of this layer.
    """

    def __init__(self, query_dim: int, context_dim: int, n_heads: int, d_head: int, name: str = "") -> None:
        super().__init__(query_dim, context_dim, n_heads, d_head)
        self.name = name

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.attn.heads, -1)).transpose(1, 2)

    def project_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the grounding tokens; they do not depend on the visual tokens.

        Args:
            tokens: `[B, T, context_dim]`.

        Returns:
            Keys and values, `[B, heads, T, d_head]` each.
        """
        tokens = self.norm1(self.linear(tokens))
        return self._heads(self.attn.to_k(tokens)), self._heads(self.attn.to_v(tokens))

    def attend(self, x: Tensor, grounding: Grounding) -> Tensor:
        """Attention output of the visual tokens, `[B, P, query_dim]`, before gate and scale."""
        projected = grounding.projected.get(self.name)
        key_tokens, value_tokens = (
            projected if projected is not None else self.project_tokens(grounding.tokens)
        )
        x = self.norm1(x)
        query = self._heads(self.attn.to_q(x))
        key = torch.cat((self._heads(self.attn.to_k(x)), key_tokens), dim=2)
        value = torch.cat((self._heads(self.attn.to_v(x)), value_tokens), dim=2)
        mask = grounding.attention_masks.get(x.shape[1])
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out = self.attn.to_out[0](out.transpose(1, 2).flatten(2))
        result: Tensor = self.attn.to_out[1](out)
        return result

    def forward(self, x: Tensor, objs: Grounding | Tensor) -> Tensor:
        """Applies the layer.

        Args:
            x: `[B, P, query_dim]` visual tokens.
            objs: The grounding, or plain `[B, T, context_dim]` tokens (scale 1, no mask).

        Returns:
            `[B, P, query_dim]`.
        """
        grounding = objs if isinstance(objs, Grounding) else Grounding(objs)
        scale = grounding.scale
        if not self.enabled or (not isinstance(scale, Tensor) and scale == 0):
            return x
        if isinstance(scale, Tensor):
            scale = scale.to(x.dtype).view(-1, 1, 1)
        # One pass over the tokens instead of a product and a sum.
        x = torch.addcmul(x, self.attend(x, grounding), scale * self.alpha_attn.tanh())
        return torch.addcmul(x, self.ff(self.norm2(x)), scale * self.alpha_dense.tanh())
