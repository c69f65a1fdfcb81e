"""Base of the metrics that gather records: plain data kept as bytes in a tensor state.

Detections are ragged and hold text (run lengths), which torchmetrics cannot gather as they are. Each record
is one JSON line; lines are concatenated as uint8 tensors, which every distributed backend can move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

__all__ = ["RecordMetric"]


class RecordMetric(Metric):
    """Gathers one record per key; a key seen again (padded samplers) is counted once.

    After `compute`, `result` holds the result dataclass with counts and per-instance rows; `compute` itself
    returns tensors, as torchmetrics requires, with NaN where there is nothing to score.
    """

    full_state_update = False
    is_differentiable = False

    lines: list[torch.Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("lines", default=[], dist_reduce_fx="cat")

    def _append(self, records: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(record, default=_plain, allow_nan=False) + "\n" for record in records)
        if text:
            data = np.frombuffer(text.encode(), dtype=np.uint8).copy()
            self.lines.append(torch.from_numpy(data).to(self.device))

    def _records(self, key: str) -> list[dict[str, Any]]:
        """All records in the order of their keys, whichever process they came from."""
        parts = self.lines if isinstance(self.lines, list) else [self.lines]
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode()
        table: dict[Any, dict[str, Any]] = {}
        for line in text.splitlines():
            if line:
                record = json.loads(line)
                table.setdefault(record[key], record)
        return [table[identifier] for identifier in sorted(table)]

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[torch.Tensor]] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        # A process without data would send an empty float tensor, which backends refuse beside uint8.
        if isinstance(self.lines, list) and not self.lines:
            self.lines = [torch.tensor([ord("\n")], dtype=torch.uint8, device=self.device)]
        super()._sync_dist(dist_sync_fn, process_group=process_group)


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays, tensors and bytes as JSON values."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be kept in a record")
