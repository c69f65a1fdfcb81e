"""ConvNeXt trunk that turns instance masks into a feature map (Liu et al., A ConvNet for the 2020s)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNeXt"]

EPS = 1e-6
STRIDE = 32


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of `[B, C, H, W]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises every pixel over its channels; shape and dtype stay."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution, LayerNorm and an inverted bottleneck, scaled and added to the input.

    Args:
        width: Channels.
        layer_scale: Initial value of the learned scale of the residual branch.
    """

    def __init__(self, width: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block to `[B, C, H, W]`; shape and dtype stay."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt without its classifier; the parameter names are those of the original release.

    Args:
        depths: Blocks per stage (ConvNeXt-tiny: 3, 3, 9, 3).
        widths: Channels per stage (ConvNeXt-tiny: 96, 192, 384, 768).
        in_channels: Channels of the input.
        layer_scale: Initial layer scale. The original value 1e-6 suits 300 epochs of ImageNet; a short
            training from scratch needs branches that carry signal from the start.

    Raises:
        ValueError: If `depths` and `widths` do not both have four entries.
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], in_channels: int = 3, layer_scale: float = 0.1
    ) -> None:
        super().__init__()
        if len(depths) != 4 or len(widths) != 4:
            raise ValueError(
                f"ConvNeXt: depths {list(depths)} and widths {list(widths)} need four entries each"
            )
        stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], kernel_size=4, stride=4),
            ChannelsFirstLayerNorm(widths[0], eps=EPS),
        )
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in pairwise(widths):
            norm = ChannelsFirstLayerNorm(narrow, eps=EPS)
            self.downsample_layers.append(
                nn.Sequential(norm, nn.Conv2d(narrow, wide, kernel_size=2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, layer_scale) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the last feature map.

        Args:
            x: `[B, in_channels, H, W]`, height and width multiples of 32.

        Returns:
            `[B, widths[-1], H / 32, W / 32]`.
        """
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return x
