"""Named references for FID and KID: which images, resized how, seen by which network.

A distance means something only beside its reference. The facts are stored with the statistics in one safetensors file,
and a reference with other facts is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from metrics.functional.frechet import FeatureStatistics, feature_statistics

__all__ = ["Reference", "check_reference", "load_reference", "make_reference", "save_reference"]

_FORMAT = "instbench-reference-1"


@dataclass(frozen=True)
class Reference:
    """Features of the reference images and what they are.

    Attributes:
        facts: Plain JSON values: ids or their hash, rule of resizing, hash of the extractor, count.
        statistics: Mean and covariance.
        features: float32 [N, D], for KID; None where only the statistics were kept.
    """

    facts: Mapping[str, Any]
    statistics: FeatureStatistics
    features: NDArray[np.float32] | None = None


def make_reference(features: ArrayLike, facts: Mapping[str, Any], *, keep_features: bool = True) -> Reference:
    """A reference from features [N, D].

    Raises:
        ValueError: If there are fewer than two images or a value is not finite.
    """
    array = np.asarray(features, dtype=np.float32)
    return Reference(dict(facts), feature_statistics(array), array if keep_features else None)


def check_reference(expected: Mapping[str, Any], actual: Mapping[str, Any], name: str = "reference") -> None:
    """Refuses a reference that is not the expected one.

    Args:
        expected: Facts that a run needs.
        actual: Facts of the reference at hand.
        name: What to call it in the message.

    Raises:
        ValueError: If a fact differs; names each one with both values.
    """
    different = [
        f"{key} is {_short(actual.get(key))}, needed {_short(expected.get(key))}"
        for key in sorted({*expected, *actual})
        if actual.get(key) != expected.get(key)
    ]
    if different:
        raise ValueError(f"{name}: another reference ({'; '.join(different)}); make it again")


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def save_reference(reference: Reference, path: Path) -> None:
    """Writes a reference as one safetensors file, in one step."""
    statistics = reference.statistics
    tensors: dict[str, NDArray[Any]] = {
        "mean": np.ascontiguousarray(statistics.mean),
        "covariance": np.ascontiguousarray(statistics.covariance),
    }
    if reference.features is not None:
        tensors["features"] = np.ascontiguousarray(reference.features)
    metadata = {
        "format": _FORMAT,
        "count": str(statistics.count),
        "facts": json.dumps(dict(reference.facts), sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(save(tensors, metadata))
    partial.replace(path)


def load_reference(path: Path) -> Reference:
    """Reads a reference.

    Raises:
        ValueError: If the file is missing, damaged, or no reference.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read as a reference ({reason}); make it again") from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: no reference of this format; make it again")
    try:
        count, facts = int(metadata["count"]), json.loads(metadata["facts"])
        mean, covariance = tensors["mean"], tensors["covariance"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: incomplete ({error}); make it again") from None
    size, features = mean.size, tensors.get("features")
    fits = mean.shape == (size,) and covariance.shape == (size, size) and isinstance(facts, dict)
    if features is not None:
        fits = fits and features.shape == (count, size)
    if not fits or not all(np.isfinite(array).all() for array in tensors.values()):
        raise ValueError(f"{path}: its arrays do not fit together or are not finite; make it again")
    return Reference(facts, FeatureStatistics(mean, covariance, count), features)
