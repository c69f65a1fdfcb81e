"""What steers the chains of one sampling run: grounding tensors as tables of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["concatenate_grounding", "normalise_grounding", "null_grounding", "select_grounding"]

_ALIASES = {"text_embeddings": "positive_embeddings", "att_masks": "instance_masks"}


def normalise_grounding(grounding: Mapping[str, Any]) -> dict[str, Any]:
    """Grounding tensors under the names that `UniFusion` takes.

    Args:
        grounding: Tensors by name; ``text_embeddings`` and ``att_masks`` (the published names) are accepted
            for ``positive_embeddings`` and ``instance_masks``.

    Returns:
        A new dict without the entries that are None.

    Raises:
        ValueError: If a required tensor is missing.
    """
    named = {_ALIASES.get(name, name): value for name, value in grounding.items() if value is not None}
    for name in ("boxes", "masks", "positive_embeddings"):
        if name not in named:
            raise ValueError(
                f"grounding: {name!r} is missing; it has {', '.join(sorted(named)) or 'nothing'}"
            )
    return named


def _map(grounding: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {
        name: _map(value, change) if isinstance(value, Mapping) else change(value)
        for name, value in grounding.items()
    }


def select_grounding(grounding: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """Some rows of every tensor, nested mappings (``format_masks``) included."""
    return _map(grounding, lambda value: value[rows])


def null_grounding(grounding: Mapping[str, Any], rows: int = 1) -> dict[str, Any]:
    """The grounding of "no instances": zeros in the shapes of an example, as published."""
    return _map(grounding, lambda value: torch.zeros_like(value[:1]).expand(rows, *value.shape[1:]))


def concatenate_grounding(groundings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the rows of several groundings that carry the same tensors.

    Raises:
        ValueError: If they carry different tensors.
    """
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
        joined[name] = concatenate_grounding(values) if isinstance(value, Mapping) else torch.cat(values)
    return joined
