"""UniFusion: locations and phrases of instances in, grounding tokens out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.convnext import STRIDE, ConvNeXt
from reference_model.fourier import fourier_embed

__all__ = ["FORMATS", "UniFusion", "resolve_keep"]

FORMATS = ("box", "point", "scribble", "mask")
"""Location formats in the order of their tokens."""

_NULL_NAMES = {
    "box": "null_position_feature",
    "point": "null_point_feature",
    "scribble": "null_scribble_feature",
    "mask": "null_polygon_feature",
}


def resolve_keep(keep: Sequence[str]) -> tuple[str, ...]:
    """Normalises a choice of formats to token order.

    Args:
        keep: Names out of `FORMATS`, in any order, or one name. If it is empty, the box is switched back on, as
            published.

    Returns:
        The kept formats in token order.

    Raises:
        ValueError: If a name is unknown.
    """
    names = (keep,) if isinstance(keep, str) else tuple(keep)
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f"keep: unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names) or ("box",)


def _tokenizer(in_features: int, mid_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, mid_dim),
        nn.SiLU(),
        nn.Linear(mid_dim, mid_dim),
        nn.SiLU(),
        nn.Linear(mid_dim, out_dim),
    )


class UniFusion(nn.Module):
    """Turns the location formats of every instance slot into tokens for the gated layers.

    Each format has a tokenizer of its own that reads the phrase embedding beside the Fourier features of
    the location; formats that are dropped, and slots that are empty, are replaced by learned nulls. The
    masks of all slots enter a ConvNeXt together and give further tokens without text. Token order: box,
    point, scribble, mask (one per slot each), then the segment tokens: 4 * 30 + 64 = 184 as published.

    Args:
        in_dim: Size of the phrase embeddings.
        out_dim: Size of the tokens.
        mid_dim: Hidden size of the tokenizers (published: 3072).
        max_instances: Number of slots.
        num_scribble_points: Points of a scribble.
        num_mask_points: Points that stand for a mask.
        num_fourier_freqs: Frequencies of the Fourier features.
        segment_size: Side in pixels to which masks are resized for the ConvNeXt; a multiple of 64.
        convnext_depths: Blocks per stage, or None for a model without segment tokens.
        convnext_widths: Channels per stage, or None likewise.
        joint_tokens: One token per slot that reads all four formats together, in place of one token per format; what
            the paper compares its separate tokens with. Segment tokens stay.

    Raises:
        ValueError: If `segment_size` is not a multiple of 64 or only one of the ConvNeXt sizes is given.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        mid_dim: int = 3072,
        *,
        max_instances: int = 30,
        num_scribble_points: int = 20,
        num_mask_points: int = 256,
        num_fourier_freqs: int = 16,
        segment_size: int = 512,
        convnext_depths: Sequence[int] | None = (3, 3, 9, 3),
        convnext_widths: Sequence[int] | None = (96, 192, 384, 768),
        joint_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.joint_tokens = joint_tokens
        self.max_instances = max_instances
        self.num_fourier_freqs = num_fourier_freqs
        self.segment_size = segment_size
        self.coordinates = {
            "box": 4,
            "point": 2,
            "scribble": 2 * num_scribble_points,
            "mask": 2 * num_mask_points,
        }
        self.linears_list = nn.ModuleList()
        self.null_positive_feature = nn.Parameter(torch.zeros(in_dim))
        for name, count in self.coordinates.items():
            features = 2 * num_fourier_freqs * count
            if not joint_tokens:
                self.linears_list.append(_tokenizer(in_dim + features, mid_dim, out_dim))
            self.register_parameter(_NULL_NAMES[name], nn.Parameter(torch.zeros(features)))
        if joint_tokens:
            features = 2 * num_fourier_freqs * sum(self.coordinates.values())
            self.linears_list.append(_tokenizer(in_dim + features, mid_dim, out_dim))

        if (convnext_depths is None) != (convnext_widths is None):
            raise ValueError("UniFusion: give convnext_depths and convnext_widths together, or neither")
        self.num_segment_tokens = 0
        if convnext_depths is not None and convnext_widths is not None:
            if segment_size % (2 * STRIDE):
                raise ValueError(f"UniFusion: segment_size {segment_size} is not a multiple of {2 * STRIDE}")
            self.num_segment_tokens = (segment_size // (2 * STRIDE)) ** 2
            width = 4 * convnext_widths[-1]
            self.in_conv = nn.Conv2d(max_instances, 3, kernel_size=3, padding=1)
            self.convnext_tiny_backbone = ConvNeXt(convnext_depths, convnext_widths)
            self.pos_embedding = nn.Parameter(torch.randn(1, self.num_segment_tokens, width) * 0.02)
            self.null_seg_feature = nn.Parameter(torch.zeros(width))
            self.linears_list.append(_tokenizer(width, mid_dim, out_dim))

    @property
    def tokens_per_slot(self) -> int:
        """Tokens of one instance: one per format, or one for all."""
        return 1 if self.joint_tokens else len(FORMATS)

    @property
    def num_tokens(self) -> int:
        """Number of tokens per image."""
        return self.tokens_per_slot * self.max_instances + self.num_segment_tokens

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

        Null rules, as published: a box or point is null where `masks` is 0; scribbles and mask points
        are null where `masks` is 0 and their coordinates sum to 0 (so a filled slot with all-zero
        coordinates gives the features of 0, not the null); the segment tokens are null where the masks of
        the whole sample sum to 0. With `format_masks` the presence of each format is explicit instead. Arrays
        are taken as tensors.

        Args:
            boxes: `[B, N, 4]` xyxy in [0, 1]; N = max_instances.
            masks: `[B, N]` 1 for filled slots, 0 for empty ones.
            positive_embeddings: `[B, N, in_dim]` phrase embeddings.
            scribbles: `[B, N, 2 * num_scribble_points]` x0, y0, x1, ... in [0, 1]; None drops the format.
            polygons: `[B, N, 2 * num_mask_points]` mask points likewise; None drops the mask points.
            segs: `[B, N, H, W]` instance masks (0 or 1); resized to `segment_size` by nearest neighbour;
                None drops the segment tokens.
            points: `[B, N, 2]` xy in [0, 1]; None means the box centres.
            keep: Formats that stay; the others are replaced by their nulls. Empty means the box alone.
            format_masks: Presence `[B, N]` per format (float or bool). A format in it is null exactly where
                its presence is 0; for "mask" that covers the segment too. Formats not in it follow `masks`.

        Returns:
            `[B, num_tokens, out_dim]` tokens. The attribute `kept_formats` of the tensor records `keep`.

        Raises:
            ValueError: If a shape does not fit the configuration or a format name is unknown.
        """
        kept = resolve_keep(keep)
        if format_masks is not None:
            resolve_keep(tuple(format_masks))
        boxes, masks, positive_embeddings = map(torch.as_tensor, (boxes, masks, positive_embeddings))
        if points is None:
            points = (boxes[..., :2] + boxes[..., 2:]) / 2
        given = {"box": boxes, "point": points, "scribble": scribbles, "mask": polygons}
        locations = {k: None if v is None else torch.as_tensor(v) for k, v in given.items()}
        segs = None if segs is None else torch.as_tensor(segs)
        self._check(masks, positive_embeddings, locations)
        dtype = self.null_positive_feature.dtype
        filled = masks.unsqueeze(-1).to(dtype)
        phrases = positive_embeddings.to(dtype) * filled + (1 - filled) * self.null_positive_feature

        features = {
            name: self._features(name, location, filled, format_masks)
            for name, location in locations.items()
            if name in kept and location is not None
        }
        tokens = []
        if self.joint_tokens:
            nulls = {name: getattr(self, _NULL_NAMES[name]).expand(*masks.shape, -1) for name in FORMATS}
            together = [phrases, *(features.get(name, nulls[name]) for name in FORMATS)]
            tokens.append(self.linears_list[0](torch.cat(together, dim=-1)))
        else:
            for tokenizer, name in zip(self.linears_list, FORMATS, strict=False):
                if name in features:
                    tokens.append(tokenizer(torch.cat((phrases, features[name]), dim=-1)))
                else:
                    tokens.append(self._null_tokens(tokenizer, phrases, getattr(self, _NULL_NAMES[name])))
        if self.num_segment_tokens:
            if segs is not None and format_masks is not None and "mask" in format_masks:
                segs = segs * format_masks["mask"].to(filled.dtype)[..., None, None]
            tokens.append(self._segment_tokens(segs if "mask" in kept else None, boxes.shape[0]))
        result = torch.cat(tokens, dim=1)
        result.kept_formats = kept  # type: ignore[attr-defined]
        return result

    def _check(self, masks: Tensor, phrases: Tensor, locations: Mapping[str, Tensor | None]) -> None:
        slots = (masks.shape[0], self.max_instances)
        if masks.shape != slots:
            raise ValueError(f"masks: shape {tuple(masks.shape)}, expected {slots}")
        if phrases.shape != (*slots, self.in_dim):
            raise ValueError(
                f"positive_embeddings: shape {tuple(phrases.shape)}, expected {(*slots, self.in_dim)}"
            )
        for name, location in locations.items():
            expected = (*slots, self.coordinates[name])
            if location is not None and location.shape != expected:
                raise ValueError(f"{name} coordinates: shape {tuple(location.shape)}, expected {expected}")

    def _features(
        self, name: str, location: Tensor, filled: Tensor, format_masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Fourier features `[B, N, F]` of a kept format, its null where it is absent."""
        present = self._presence(name, location, filled, format_masks)
        # The angles reach 75 radians, too much for half precision.
        exact = location.to(torch.promote_types(location.dtype, torch.float32))
        features = fourier_embed(exact, self.num_fourier_freqs).to(filled.dtype)
        return features * present + (1 - present) * getattr(self, _NULL_NAMES[name])

    @staticmethod
    def _presence(
        name: str, location: Tensor, filled: Tensor, format_masks: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Presence `[B, N, 1]` of a kept format."""
        if format_masks is not None and name in format_masks:
            return format_masks[name].unsqueeze(-1).to(filled.dtype)
        if name in ("scribble", "mask"):
            return ((location.sum(dim=-1, keepdim=True) + filled) > 0).to(filled.dtype)
        return filled

    def _null_tokens(self, tokenizer: nn.Module, phrases: Tensor, null: Tensor) -> Tensor:
        """Tokens of a dropped format; its constant part of the first layer is computed once."""
        assert isinstance(tokenizer, nn.Sequential)  # noqa: S101 - narrows the type
        first = tokenizer[0]
        assert isinstance(first, nn.Linear)  # noqa: S101
        constant = F.linear(null, first.weight[:, self.in_dim :], first.bias)
        hidden = F.linear(phrases, first.weight[:, : self.in_dim]) + constant
        return tokenizer[1:](hidden)

    def _segment_tokens(self, segs: Tensor | None, batch: int) -> Tensor:
        """Tokens `[B, num_segment_tokens, out_dim]` of the masks of all slots together."""
        null = self.null_seg_feature
        if segs is None:
            features = null.expand(1, self.num_segment_tokens, -1)
        else:
            if segs.ndim != 4 or segs.shape[:2] != (batch, self.max_instances):
                expected = (batch, self.max_instances, "H", "W")
                raise ValueError(f"segs: shape {tuple(segs.shape)}, expected {expected}")
            segs = segs.to(null.dtype)
            segs = F.interpolate(segs, size=(self.segment_size, self.segment_size), mode="nearest")
            # In float32: in half precision the sum over 30 x 512 x 512 would overflow.
            present = (segs.float().sum(dim=(1, 2, 3)) > 0).view(-1, 1, 1).to(segs.dtype)
            maps = self.convnext_tiny_backbone(self.in_conv(segs))
            # Not patches: the published code cuts the flattened map into strips (four per channel).
            features = maps.reshape(batch, -1, self.num_segment_tokens).permute(0, 2, 1)
            features = features * present + (1 - present) * null
        tokens = self.linears_list[-1](features + self.pos_embedding)
        return tokens.expand(batch, -1, -1)
