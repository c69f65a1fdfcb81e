"""Where an instance lies on the latent grid, for instance-masked attention.

The paper masks the gated attention with the instances' boxes and masks (section 3, instance-masked
attention). Points and scribbles have no extent of their own; a *local mask* (discs around the points)
is our extension, switched on by ``local_mask_radius`` in the model's config.

All coordinates are relative to the canvas (x to the right, y down, in [0, 1]).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["cells_from_boxes", "cells_from_masks", "cells_from_points"]


def cells_from_boxes(boxes_xyxy: Tensor, height: int, width: int) -> Tensor:
    """Cells of a grid that a box overlaps.

    Args:
        boxes_xyxy: Relative boxes, float [..., 4].
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        bool [..., height, width].
    """
    rows = torch.arange(height, device=boxes_xyxy.device, dtype=boxes_xyxy.dtype)
    columns = torch.arange(width, device=boxes_xyxy.device, dtype=boxes_xyxy.dtype)
    x0, y0, x1, y1 = (boxes_xyxy[..., i, None] for i in range(4))
    in_columns = (columns + 1 > x0 * width) & (columns < x1 * width)
    in_rows = (rows + 1 > y0 * height) & (rows < y1 * height)
    return in_rows[..., :, None] & in_columns[..., None, :]


def cells_from_points(points_xy: Tensor, radius: float, height: int, width: int) -> Tensor:
    """Cells whose centre lies within a radius of any of the points; the points' own cells always count.

    Args:
        points_xy: Relative points, float [..., K, 2].
        radius: Relative radius (share of the canvas side).
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        bool [..., height, width].
    """
    rows = (torch.arange(height, device=points_xy.device, dtype=points_xy.dtype) + 0.5) / height
    columns = (torch.arange(width, device=points_xy.device, dtype=points_xy.dtype) + 0.5) / width
    dx = (points_xy[..., 0, None] - columns).abs()
    dy = (points_xy[..., 1, None] - rows).abs()
    near = dx[..., None, :] ** 2 + dy[..., :, None] ** 2 <= radius**2
    # In cell units the half-integer centres are exact, so that rounding never loses the own cell.
    own_columns = (points_xy[..., 0, None] * width - torch.arange(width, device=dx.device) - 0.5).abs() <= 0.5
    own_rows = (points_xy[..., 1, None] * height - torch.arange(height, device=dy.device) - 0.5).abs() <= 0.5
    own = own_columns[..., None, :] & own_rows[..., :, None]
    return (near | own).any(dim=-3)


def cells_from_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Cells of a grid that a mask overlaps.

    Args:
        masks: Binary masks at any size, bool or float [..., H, W].
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        bool [..., height, width].
    """
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    pooled = functional.adaptive_max_pool2d(flat, (height, width))
    return (pooled > 0.5).reshape(*masks.shape[:-2], height, width)
