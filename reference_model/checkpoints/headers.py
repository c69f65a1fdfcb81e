"""What the header of a safetensors file says about its tensors, and whether they are those that a model has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from reference_model.checkpoints.tensors import CheckpointError, listing

__all__ = ["SAFETENSORS_DTYPES", "TensorFacts", "facts_of", "misfits"]

SAFETENSORS_DTYPES: Final[dict[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Types that are read, by their names in a header."""

_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A tensor as a header describes it.

    Attributes:
        shape: Its sizes.
        dtype: Type of its numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype


def facts_of(path: Path) -> dict[str, TensorFacts]:
    """Shapes and types of the tensors of one safetensors file, by name.

    Raises:
        CheckpointError: If the header does not fit the file (offsets that overlap, leave gaps or lie outside), or a
            tensor has a type that is not read.
    """
    facts: dict[str, TensorFacts] = {}
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is a folder, a pipe or a device; copy the checkpoint again")
    try:
        with safe_open(str(path), framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - not a dict
                view = handle.get_slice(name)
                kind = view.get_dtype()
                if kind not in SAFETENSORS_DTYPES:
                    raise CheckpointError(
                        f"{path}: tensor {name} has the type {kind}, which is not supported"
                    )
                facts[name] = TensorFacts(tuple(view.get_shape()), SAFETENSORS_DTYPES[kind])
    except CheckpointError:  # is a ValueError
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # the last where it cannot be mapped
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path}: truncated or damaged ({reason}); copy or download it again") from None
    return facts


def misfits(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """Says which tensors of a file are not those of a model, before any is read.

    Args:
        wanted: What the model has, by name; anything with ``shape`` and ``dtype``.
        held: What the file has, likewise.

    Returns:
        Missing and superfluous names, shapes and kinds of numbers that differ, the first of each; "" if all fit.
        Floating types may differ in precision; quantised weights do not fit.
    """
    both = sorted(set(wanted) & set(held))
    shapes = [name for name in both if tuple(wanted[name].shape) != tuple(held[name].shape)]
    kinds = [
        name
        for name in both
        if (
            held[name].dtype not in _FLOATS if wanted[name].dtype.is_floating_point else _is_float(held[name])
        )
    ]
    found = {
        "missing": sorted(set(wanted) - set(held)),
        "superfluous": sorted(set(held) - set(wanted)),
        "of another shape": [
            f"{name} {list(held[name].shape)} for {list(wanted[name].shape)}" for name in shapes
        ],
        "of another type": [f"{name} ({held[name].dtype})" for name in kinds],
    }
    return "; ".join(f"{what}: {listing(names)}" for what, names in found.items() if names)


def _is_float(tensor: Any) -> bool:
    return bool(tensor.dtype.is_floating_point)
