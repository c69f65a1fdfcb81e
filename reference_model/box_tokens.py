"""GLIGEN's grounding tokens: one per instance, from its phrase and its box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers.models.embeddings import GLIGENTextBoundingboxProjection
from torch import Tensor

from reference_model.unifusion import FORMATS, resolve_keep

__all__ = ["BoxTokens"]


class BoxTokens(GLIGENTextBoundingboxProjection):
    """Diffusers' own position net of GLIGEN behind the arguments of `UniFusion`, so that one sampler serves both.

    Only boxes are read. An instance without a box, and an empty slot, gets GLIGEN's learned nulls; what a
    caller wants to say with a mask, scribble or point must come as a box.

    Args:
        in_dim: Size of the phrase embeddings.
        out_dim: Size of the tokens.
        max_instances: Number of slots.
        num_fourier_freqs: Frequencies of the Fourier features (published: 8).
    """

    num_segment_tokens = 0
    tokens_per_slot = 1

    def __init__(
        self, in_dim: int, out_dim: int, *, max_instances: int = 30, num_fourier_freqs: int = 8
    ) -> None:
        super().__init__(in_dim, out_dim, fourier_freqs=num_fourier_freqs)
        self.in_dim = in_dim
        self.max_instances = max_instances
        self.num_fourier_freqs = num_fourier_freqs

    @property
    def num_tokens(self) -> int:
        """Number of tokens per image."""
        return self.max_instances

    def forward(
        self,
        boxes: Tensor,
        masks: Tensor,
        positive_embeddings: Tensor,
        scribbles: Tensor | None = None,
        polygons: Tensor | None = None,
        segs: Tensor | None = None,
        points: Tensor | None = None,
        keep: Sequence[str] = FORMATS,
        format_masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Computes the grounding tokens of a batch.

        Args:
            boxes: `[B, N, 4]` xyxy in [0, 1]; N = max_instances.
            masks: `[B, N]` 1 for filled slots, 0 for empty ones.
            positive_embeddings: `[B, N, in_dim]` phrase embeddings.
            scribbles: Not read.
            polygons: Not read.
            segs: Not read.
            points: Not read.
            keep: Formats that stay; without ``"box"`` every slot is null.
            format_masks: Presence `[B, N]` per format; that of ``"box"`` counts.

        Returns:
            `[B, N, out_dim]` tokens.

        Raises:
            ValueError: If a shape does not fit the configuration or a format name is unknown.
        """
        kept = resolve_keep(keep)
        if format_masks is not None:
            resolve_keep(tuple(format_masks))
        boxes, masks, embeddings = map(torch.as_tensor, (boxes, masks, positive_embeddings))
        slots = (masks.shape[0], self.max_instances)
        for name, tensor, expected in (
            ("masks", masks, slots),
            ("boxes", boxes, (*slots, 4)),
            ("positive_embeddings", embeddings, (*slots, self.in_dim)),
        ):
            if tuple(tensor.shape) != expected:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {expected}")
        dtype = self.null_positive_feature.dtype
        present = masks.to(dtype)
        if format_masks is not None and "box" in format_masks:
            present = present * format_masks["box"].to(dtype)
        if "box" not in kept:
            present = torch.zeros_like(present)
        # Diffusers computes the angles in the dtype of the boxes; they reach 60 radians, too much for half precision.
        exact = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        tokens: Tensor = super().forward(exact, present, embeddings.to(dtype))
        tokens.kept_formats = kept  # type: ignore[attr-defined]
        return tokens
