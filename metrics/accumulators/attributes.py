"""Attribute binding as a torchmetrics class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from metrics.accumulators.records import RecordMetric
from metrics.functional.attribute_binding import (
    AttributeBindingResult,
    AttributeObservation,
    attribute_binding,
)

__all__ = ["AttributeBinding"]

_NUMBERS = ("accuracy", "accuracy_given_found", "macro_accuracy", "leakage_rate", "local_similarity")


class AttributeBinding(RecordMetric):
    """Attribute binding; `compute` returns its numbers by name, NaN where nothing is to be scored.

    Args:
        labels: All labels, in the order of the observations' scores.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, labels: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labels = tuple(labels)
        self.result: AttributeBindingResult | None = None

    def update(self, observations: Sequence[AttributeObservation]) -> None:
        """Add observations; all observations of an image belong to one process."""
        self._append(asdict(observation) for observation in observations)

    def compute(self) -> dict[str, torch.Tensor]:
        """See `metrics.functional.attribute_binding.attribute_binding`."""
        observations = [AttributeObservation(**record) for record in self._records("annotation_id")]
        self.result = attribute_binding(observations, self.labels)
        values = {name: getattr(self.result, name) for name in _NUMBERS}
        return {
            name: torch.tensor(float("nan") if value is None else value, dtype=torch.float64)
            for name, value in values.items()
        }
