"""Fourier features of coordinates, in the layout of the published model."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fourier_embed", "fourier_frequencies"]


def fourier_frequencies(
    num_freqs: int = 16,
    *,
    temperature: float = 100.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Frequency bands `temperature ** (i / num_freqs)`, without a factor of 2 pi.

    Args:
        num_freqs: Number of bands.
        temperature: Base of the geometric progression.
        device: Device of the result.
        dtype: Floating type of the result.

    Returns:
        `[num_freqs]` frequencies, the first one being 1.
    """
    exponents = torch.arange(num_freqs, device=device, dtype=torch.float32) / num_freqs
    return (temperature**exponents).to(dtype)


def fourier_embed(x: Tensor, num_freqs: int = 16, *, temperature: float = 100.0) -> Tensor:
    """Embeds coordinate vectors with sines and cosines of growing frequency.

    The layout is `[sin(f0 v), cos(f0 v), sin(f1 v), cos(f1 v), ...]` where each entry covers the whole
    vector `v`, as in the published implementation.

    Args:
        x: `[..., D]` coordinates, relative to the canvas (in [0, 1]); any floating dtype.
        num_freqs: Number of frequency bands.
        temperature: Base of the frequencies, see `fourier_frequencies`.

    Returns:
        `[..., 2 * num_freqs * D]` features in the dtype of `x`.

    Raises:
        ValueError: If `x` is not a floating tensor.
    """
    if not x.is_floating_point():
        raise ValueError(f"fourier_embed: x has dtype {x.dtype}; pass floating point coordinates in [0, 1]")
    freqs = fourier_frequencies(num_freqs, temperature=temperature, device=x.device, dtype=x.dtype)
    angles = x.unsqueeze(-2) * freqs.unsqueeze(-1)  # [..., F, D]
    return torch.stack((angles.sin(), angles.cos()), dim=-2).flatten(-3)
