"""ScaleU: learned re-weighting of backbone features and of the low frequencies of the skips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from reference_model.unet import InstanceUNet

__all__ = ["FreeU", "ScaleU", "filter_skip", "freeu_scalers", "lowpass_basis", "replaced_scaleu"]


def _axis_frequencies(size: int) -> list[int]:
    """Frequencies inside the window [c - 1, c + 1) around the centre c of the shifted spectrum."""
    return [0] if size == 1 else [-1, 0]


def lowpass_basis(height: int, width: int, device: torch.device) -> Tensor:
    """Orthonormal waves of the central 2x2 window of the shifted spectrum, as real columns.

    The window holds the frequencies -1 and 0 of both axes (0 alone on an axis of size 1). Column pairs
    are the real and imaginary parts of one complex wave, so that for a real map `h` the real part of
    its projection on the window is `basis @ basis.T @ h`.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        device: Device of the result.

    Returns:
        `[height * width, K]` float32 with K at most 8.
    """
    rows = torch.arange(height, dtype=torch.float64).unsqueeze(1) / height
    cols = torch.arange(width, dtype=torch.float64).unsqueeze(0) / width
    columns = []
    for ky in _axis_frequencies(height):
        for kx in _axis_frequencies(width):
            phase = 2 * torch.pi * (ky * rows + kx * cols)
            columns.append(phase.cos().flatten())
            if ky or kx:
                columns.append(phase.sin().flatten())
    basis = torch.stack(columns, dim=1) / (height * width) ** 0.5
    return basis.to(device=device, dtype=torch.float32)


@lru_cache(maxsize=64)
def _cached_basis(height: int, width: int, device: torch.device) -> Tensor:
    # The cache may be filled inside an inference_mode block and used for training later.
    with torch.inference_mode(False):
        return lowpass_basis(height, width, device)


def filter_skip(h: Tensor, scale: Tensor | float) -> Tensor:
    """Scales the central 2x2 of the shifted spectrum of a feature map.

    Equal to FFT, shift, multiplication of `[c - 1 : c + 1]` in both axes around `size // 2`, inverse
    FFT and real part, but as two small matrix products: only four frequencies change. The arithmetic is
    float32 whatever the dtype of `h` and any autocast. The window is not symmetric (it has frequency -1
    but not +1); on a 2x2 map it covers everything.

    Args:
        h: `[B, C, H, W]`, any size and floating dtype.
        scale: Factor of the window, a number or a tensor with one element.

    Returns:
        The filtered map, shape and dtype of `h`.
    """
    height, width = h.shape[-2:]
    # A compiler traces through the cache anyway, with a warning.
    make_basis = lowpass_basis if torch.compiler.is_compiling() else _cached_basis
    basis = make_basis(height, width, h.device)
    with torch.autocast(device_type=h.device.type, enabled=False):
        flat = h.flatten(2).float()
        gain = scale.float() - 1 if isinstance(scale, Tensor) else scale - 1
        flat = flat + (flat @ basis * gain) @ basis.T
    return flat.view(h.shape).to(h.dtype)


class ScaleU(nn.Module):
    """Re-weights the two inputs of one layer of the up path, just before they are concatenated.

    Args:
        channels: Channels of the backbone feature that enters the layer.

    Attributes:
        b: `[channels]` raw weights; the backbone is multiplied by `tanh(b) + 1`.
        s: `[1]` raw weight; the low frequencies of the skip are multiplied by `tanh(s) + 1`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(channels))
        self.s = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Scales backbone and skip.

        Args:
            hidden: `[B, channels, H, W]` backbone feature.
            skip: `[B, C', H, W]` skip feature.

        Returns:
            The scaled pair; shapes and dtypes stay.
        """
        gain = (torch.tanh(self.b) + 1).view(1, -1, 1, 1).to(hidden.dtype)
        return hidden * gain, filter_skip(skip, torch.tanh(self.s.float()) + 1)


class FreeU(nn.Module):
    """Constant re-weighting in the place of one ScaleU: half of the backbone's channels, and the skip.

    Args:
        backbone: Factor of the first half of the backbone's channels.
        skip: Factor of the skip's low frequencies, see `filter_skip`.
    """

    def __init__(self, backbone: float, skip: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.skip = skip

    def forward(self, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Scales backbone and skip; shapes and dtypes stay."""
        half = hidden.shape[1] // 2
        scaled = torch.cat((hidden[:, :half] * self.backbone, hidden[:, half:]), dim=1)
        return scaled, filter_skip(skip, self.skip)


def freeu_scalers(unet: InstanceUNet, stages: Sequence[tuple[float, float]]) -> list[nn.Module]:
    """Modules that make the up path FreeU's.

    Args:
        unet: An `InstanceUNet`.
        stages: Backbone and skip factor per block of the up path, deepest first; FreeU names two, and later
            blocks stay as they are.

    Returns:
        One module per layer of the up path, for `replaced_scaleu`.
    """
    factors = [*stages, *[(1.0, 1.0)] * len(unet.up_blocks)]
    return [FreeU(*pair) for block, pair in zip(unet.up_blocks, factors, strict=False) for _ in block.resnets]


@contextmanager
def replaced_scaleu(unet: InstanceUNet, scalers: Sequence[nn.Module] | None) -> Iterator[None]:
    """Puts other modules in the place of a UNet's ScaleU for a while.

    Args:
        unet: An `InstanceUNet`; it is changed in place and put right at the end.
        scalers: One module per layer of the up path, called with backbone and skip; None for no re-weighting.

    Raises:
        ValueError: If the number of modules is not that of the layers.
    """
    layers = sum(len(block.resnets) for block in unet.up_blocks)
    if scalers is not None and len(scalers) != layers:
        raise ValueError(f"scalers: {len(scalers)} given, the up path has {layers} layers")
    learned = unet.scaleu
    unet.scaleu = None if scalers is None else nn.ModuleList(scalers)
    try:
        yield
    finally:
        unet.scaleu = learned
