"""Who may see whom inside the gated self-attention (instance-masked attention)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MODES", "box_masks", "build_attention_masks", "level_sizes"]

MODES = ("none", "published", "correct")
TOKENS_PER_SLOT = 4


def level_sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Spatial sizes of the levels of a UNet whose downsampling halves and rounds up.

    Args:
        height: Rows of the latent.
        width: Columns of the latent.
        levels: Number of levels.

    Returns:
        `(rows, columns)` per level, the full resolution first.
    """
    sizes = [(height, width)]
    for _ in range(levels - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def box_masks(boxes: Tensor, height: int, width: int, *, transposed: bool = False) -> Tensor:
    """Fills boxes on the latent grid; the published code derives its attention masks like this.

    Args:
        boxes: `[..., 4]` xyxy in [0, 1]; an empty slot is all zeros.
        height: Rows of the grid.
        width: Columns of the grid.
        transposed: Index `[x, y]`, as the published code does (then `height` must equal `width`).

    Returns:
        `[..., height, width]` bool; corners are rounded half to even, ends are exclusive.

    Raises:
        ValueError: If a transposed mask of a canvas that is not square is asked for.
    """
    if transposed and height != width:
        raise ValueError(f"box_masks: transposed masks need a square grid, got {height}x{width}")
    scale = boxes.new_tensor([width, height, width, height])
    x0, y0, x1, y1 = (boxes * scale).round().unbind(-1)
    rows = torch.arange(height, device=boxes.device)
    cols = torch.arange(width, device=boxes.device)
    in_rows = (rows >= y0[..., None]) & (rows < y1[..., None])
    in_cols = (cols >= x0[..., None]) & (cols < x1[..., None])
    filled = in_rows[..., :, None] & in_cols[..., None, :]
    return filled.transpose(-1, -2) if transposed else filled


def _shares_instance(flat: Tensor) -> Tensor:
    """`[B, N, P]` 0/1 masks to `[B, P, P]` bool: do two positions share an instance."""
    return torch.einsum("bnp,bnq->bpq", flat, flat) > 0


def _published(flat: Tensor, segment_tokens: int) -> Tensor:
    inside = flat.transpose(1, 2) > 0  # [B, P, N]
    everyone = torch.ones_like(inside)
    segments = inside.new_ones((*inside.shape[:2], segment_tokens))
    visual = _shares_instance(flat) | torch.eye(flat.shape[-1], dtype=torch.bool, device=flat.device)
    allowed = torch.cat((visual, inside, everyone, everyone, inside, segments), dim=-1)
    # Without any mask the published layer is not masked at all.
    return allowed | (flat.sum(dim=(1, 2)) == 0).view(-1, 1, 1)


def _correct(flat: Tensor, present: Tensor, segment_tokens: int, tokens_per_slot: int) -> Tensor:
    inside = flat.transpose(1, 2) > 0
    background = ~inside.any(dim=-1, keepdim=True)
    visual = _shares_instance(flat) | background
    visual = visual | torch.eye(flat.shape[-1], dtype=torch.bool, device=flat.device)
    own = inside & present.unsqueeze(1)
    segments = inside.new_ones((*inside.shape[:2], segment_tokens))
    return torch.cat((visual, *[own] * tokens_per_slot, segments), dim=-1)


def build_attention_masks(
    instance_masks: Tensor,
    *,
    sizes: Sequence[tuple[int, int]],
    mode: str,
    segment_tokens: int,
    token_mask: Tensor | None = None,
    keep: Sequence[str] = ("box", "point", "scribble", "mask"),
    tokens_per_slot: int = TOKENS_PER_SLOT,
) -> dict[int, Tensor]:
    """Builds the boolean attention masks of one batch, once for all layers and steps.

    Only the rows of visual tokens are built: what grounding tokens see never reaches the image, because
    the gated layer drops their outputs. Every row keeps itself.

    * `"none"`: no masks.
    * `"published"`: as recorded from the published code. At full latent resolution only. A visual token sees
      the visual tokens that share an instance with it and the box and mask tokens of its instances; point,
      scribble and segment tokens are seen by all. A background token sees no visual token but itself. The
      layer stays unmasked if neither "box" nor "mask" is kept, and for a sample without any mask (the
      published code asks that of the whole batch, which has one image there). The published masks are
      filled boxes indexed `[x, y]` while visual tokens run over `[y, x]`; `instance_masks` is taken as it is,
      so to repeat the published transposition pass `box_masks(..., transposed=True)`.
    * `"correct"`: `instance_masks` indexed `[y, x]`, at every resolution, pooled with max so that any overlap
      counts. Visual tokens inside mask i and all tokens (box, point, scribble, mask) of instance i see one
      another, and so do the visual tokens of one instance. Unlike the published code, a background token
      sees every visual token. Tokens of empty slots are seen by nobody; segment tokens by all.

    Args:
        instance_masks: `[B, N, H, W]` bool or float (positive means inside) at latent resolution.
        sizes: Spatial sizes of the levels, see `level_sizes`; the first is `(H, W)`.
        mode: One of `MODES`.
        segment_tokens: Number of segment tokens.
        token_mask: `[B, N]` 1 for filled slots; None takes the slots whose mask is not empty.
        keep: Kept formats, used by `"published"` alone.
        tokens_per_slot: Grounding tokens of one instance; `"published"` knows four alone.

    Returns:
        Bool masks `[B, 1, h * w, h * w + tokens_per_slot * N + segment_tokens]` (True = may see) keyed by `h * w`.
        Levels without an entry are not masked.

    Raises:
        ValueError: If the mode is unknown or not made for these tokens, or the masks do not have the size of the
            first level.
    """
    if mode not in MODES:
        raise ValueError(f"masked_attention: unknown mode {mode!r}; choose from {', '.join(MODES)}")
    if mode == "none" or (mode == "published" and "box" not in keep and "mask" not in keep and len(keep) > 0):
        return {}
    if instance_masks.ndim != 4 or tuple(instance_masks.shape[-2:]) != tuple(sizes[0]):
        expected = f"[B, N, {sizes[0][0]}, {sizes[0][1]}]"
        raise ValueError(f"instance_masks: shape {tuple(instance_masks.shape)}, expected {expected}")
    binary = (instance_masks > 0).float()
    if mode == "published":
        if tokens_per_slot != TOKENS_PER_SLOT:
            raise ValueError(
                f"masked_attention: 'published' is for {TOKENS_PER_SLOT} tokens per slot, these are {tokens_per_slot}"
            )
        allowed = _published(binary.flatten(2), segment_tokens)
        return {allowed.shape[1]: allowed.unsqueeze(1)}
    present = binary.flatten(2).any(dim=-1) if token_mask is None else token_mask > 0
    masks = {}
    for height, width in sizes:
        flat = F.adaptive_max_pool2d(binary, (height, width)).flatten(2)
        masks[height * width] = _correct(flat, present, segment_tokens, tokens_per_slot).unsqueeze(1)
    return masks
