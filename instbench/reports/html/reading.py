"""Everything that a report needs from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.execution.observe import read_detections
from instbench.layouts.serialization import read_jsonl
from instbench.layouts.types import Layout
from instbench.runs.images import file_name
from instbench.runs.records import ResultsRecord, RunRecord
from instbench.runs.store import RunFolder

__all__ = ["RunData", "read_run_data"]

_NEEDED = ("image_key", "annotation_id", "found", "failure")


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run in memory, without its pictures.

    Attributes:
        folder: The run folder.
        run: ``run.json``.
        results: ``results.json``.
        layouts: What was asked, in order.
        rows: ``instances.parquet`` by image key and annotation id.
        detections: What the detector saw, by image key; empty without a detector.
        log: Lines of ``images.jsonl`` by image key.
    """

    folder: RunFolder
    run: RunRecord
    results: ResultsRecord
    layouts: list[Layout]
    rows: Mapping[tuple[str, int], Mapping[str, Any]]
    detections: Mapping[str, Detections]
    log: Mapping[str, Mapping[str, Any]]


def read_run_data(root: Path) -> RunData:
    """Reads a scored run.

    Args:
        root: The run folder.

    Returns:
        Its contents.

    Raises:
        InputError: If the folder holds no run, or one that is not scored or damaged; names the file.
    """
    folder = RunFolder(root)
    run = folder.read_run()
    for path in (folder.results_json, folder.instances_parquet):
        if not path.exists():
            raise InputError(f"{path}: no such file; score the run first with `instbench score {root}`")
    results = folder.read_results()
    if results.identity_sha256 != run.identity_sha256:
        raise InputError(
            f"{folder.results_json}: belongs to another run; score it again with `instbench score {root}`"
        )
    layouts = read_jsonl(folder.layouts_jsonl)
    for layout in layouts:
        file_name(layout.image_key)  # refuses keys that could lead elsewhere
    rows = {(row["image_key"], row["annotation_id"]): row for row in _rows(folder.instances_parquet)}
    return RunData(folder, run, results, layouts, rows, _detections(folder), folder.read_image_log())


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: unreadable ({error}); score the run again") from error
    missing = [name for name in _NEEDED if name not in found.schema.names]
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing; score the run again")
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def _detections(folder: RunFolder) -> dict[str, Detections]:
    try:
        return read_detections(folder)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        path = folder.observations / "detections.parquet"
        raise InputError(f"{path}: unreadable ({error}); delete it and score the run again") from error
