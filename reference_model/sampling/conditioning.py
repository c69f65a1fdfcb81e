"""What steers the chains of one sampling run: grounding tensors as tables of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["concatenate_grounding", "normalise_grounding", "null_grounding", "select_grounding"]

_ALIASES = {"text_embeddings": "positive_embeddings", "att_masks": "instance_masks"}
_REQUIRED = ("boxes", "masks", "positive_embeddings")
_KNOWN = (*_REQUIRED, "points", "scribbles", "polygons", "segs", "format_masks", "instance_masks")
_UNUSED = frozenset({"text_masks"})  # in the published batches, read by nobody


def normalise_grounding(
    grounding: Mapping[str, Any], rows: int | None = None, *, name: str = "grounding"
) -> dict[str, Any]:
    """Grounding tensors under the names that `UniFusion` takes.

    Args:
        grounding: Tensors or arrays by name; ``text_embeddings`` and ``att_masks`` (the published names) are accepted
            for ``positive_embeddings`` and ``instance_masks``.
        rows: Images of the batch; tensors of one row are repeated. None takes the rows as they are.
        name: How messages call the grounding.

    Returns:
        A new dict without the entries that are None.

    Raises:
        ValueError: If a required tensor is missing, a name is unknown or a tensor has another number of rows.
    """
    named = {
        _ALIASES.get(key, key): _map(value, torch.as_tensor)
        if isinstance(value, Mapping)
        else torch.as_tensor(value)
        for key, value in grounding.items()
        if value is not None and key not in _UNUSED
    }
    if unknown := sorted(set(named) - set(_KNOWN)):
        raise ValueError(f"{name}: {unknown[0]!r} is unknown; it takes {', '.join(_KNOWN)}")
    for required in _REQUIRED:
        if required not in named:
            raise ValueError(
                f"{name}: {required!r} is missing; it has {', '.join(sorted(named)) or 'nothing'}"
            )
    return named if rows is None else _map(named, lambda value: _expanded(value, rows, name))


def _expanded(value: Tensor, rows: int, name: str) -> Tensor:
    if len(value) not in (1, rows):
        raise ValueError(f"{name}: a tensor of {len(value)} rows for {rows} images; give one row per image")
    return value.expand(rows, *value.shape[1:])


def _map(grounding: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {
        name: _map(value, change) if isinstance(value, Mapping) else change(value)
        for name, value in grounding.items()
    }


def select_grounding(grounding: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """Some rows of every tensor, nested mappings (``format_masks``) included."""
    return _map(grounding, lambda value: value[rows.to(value.device) if isinstance(rows, Tensor) else rows])


def null_grounding(grounding: Mapping[str, Any], rows: int = 1) -> dict[str, Any]:
    """The grounding of "no instances": zeros in the shapes of an example, as published."""
    return _map(grounding, lambda value: torch.zeros_like(value[:1]).expand(rows, *value.shape[1:]))


def concatenate_grounding(groundings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the rows of several groundings that carry the same tensors; ``segs`` alone may be left out of some.

    Raises:
        ValueError: If they carry different tensors or their sizes differ.
    """
    if sized := [each["segs"] for each in groundings if "segs" in each]:
        # No masks at all and masks without a pixel are the same null.
        groundings = [
            {"segs": sized[0].new_zeros(len(each["masks"]), *sized[0].shape[1:]), **each}
            if "masks" in each
            else each
            for each in groundings
        ]
    first = groundings[0]
    for other in groundings:
        if other.keys() != first.keys():
            odd = sorted(other.keys() ^ first.keys())
            raise ValueError(
                f"grounding: {', '.join(odd)} given for some chains only; "
                "the image and its instances must carry the same tensors"
            )
    joined: dict[str, Any] = {}
    for name, value in first.items():
        values = [other[name] for other in groundings]
        if isinstance(value, Mapping):
            joined[name] = concatenate_grounding(values)
            continue
        if len(sizes := {tuple(each.shape[1:]) for each in values}) > 1:
            raise ValueError(
                f"grounding: {name} has sizes {sorted(sizes)} in different chains; give one size"
            )
        joined[name] = torch.cat(values)
    return joined
