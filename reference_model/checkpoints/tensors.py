"""Tensors of checkpoint files: described first, read one by one, checked before use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["CheckpointError", "LazyTensor", "check_finite", "listing", "materialise"]

_SHOWN = 8
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one line that names the file, the tensor or key, and the fix."""


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is still in its file.

    Attributes:
        shape: Its sizes.
        dtype: Type of its numbers.
        read: Reads it; every call gives a tensor of its own, contiguous, on the CPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] = field(repr=False, compare=False)


def listing(names: Iterable[str]) -> str:
    """The first names in sorted order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def _not_finite(values: Tensor) -> int:
    """How many numbers are NaN or infinite. One pass over the numbers, without memory, where all are finite."""
    # NaN and infinity survive a sum; a sum of large numbers may overflow, which the exact count then clears.
    if not values.is_floating_point() or bool(torch.isfinite(values.sum(dtype=torch.float32))):
        return 0
    return int(values.numel() - torch.isfinite(values).sum())


def _described(name: str, broken: int, values: Tensor) -> str:
    return f"{name} ({broken} of {values.numel()})"


def check_finite(tensors: Mapping[str, Tensor], part: str) -> None:
    """Checks that no weight is NaN or infinite.

    Args:
        tensors: The tensors by name; those of whole numbers are left out.
        part: Where they come from, for messages.

    Raises:
        CheckpointError: If some are; names the tensors, each with the number of broken weights.
    """
    counts = {name: _not_finite(values) for name, values in tensors.items()}
    broken = [_described(name, count, tensors[name]) for name, count in counts.items() if count]
    if broken:
        raise CheckpointError(
            f"{part}: NaN or infinite weights in {listing(broken)}; the file is damaged or its training diverged"
        )


def materialise(
    tensors: Mapping[str, LazyTensor], part: str, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Reads the tensors of one part, one at a time, and checks their values.

    Args:
        tensors: The tensors by name.
        part: Name of the part, for messages.
        dtype: Type of the result.

    Returns:
        The tensors in `dtype`, on the CPU.

    Raises:
        CheckpointError: If tensors are not floating point, hold NaN or infinity, or do not fit `dtype`; all are
            named.
    """
    odd = {f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype not in _FLOATS}
    if odd:
        raise CheckpointError(
            f"{part}: tensors of a wrong dtype, quantised or not weights at all: {listing(odd)}; "
            "give a checkpoint in float32, float16 or bfloat16"
        )
    result: dict[str, Tensor] = {}
    broken: set[str] = set()
    overflowing: set[str] = set()
    for name, tensor in tensors.items():
        values = tensor.read()
        result[name] = converted = values.to(dtype)
        if count := _not_finite(values):
            broken.add(_described(name, count, values))
        elif _not_finite(converted):
            overflowing.add(name)
    if broken:
        raise CheckpointError(
            f"{part}: NaN or infinite weights in {listing(broken)}; the file is damaged or its training diverged"
        )
    if overflowing:
        raise CheckpointError(f"{part}: too large for {dtype}: {listing(overflowing)}; convert to float32")
    return result
