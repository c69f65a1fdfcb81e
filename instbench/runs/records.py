"""The files of a run as pydantic models; their JSON Schema can be exported.

Run ``python -m instbench.runs.records FOLDER`` to write ``run.schema.json`` and ``results.schema.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.runs.atomic import write_json
from instbench.runs.images import StoreKind

__all__ = [
    "DeviceMemoryRecord",
    "EvaluatorRecord",
    "MemoryRecord",
    "FailuresRecord",
    "MetricRecord",
    "ResultsRecord",
    "RunRecord",
    "SliceRecord",
    "TotalsRecord",
    "export_schemas",
    "read_record",
]

RecordT = TypeVar("RecordT", bound=BaseModel)
_MOST_BYTES = 2**28


class _Record(BaseModel):
    # Unknown fields are kept out of new files but tolerated in files of later versions.
    model_config = ConfigDict(extra="ignore")


class DeviceMemoryRecord(_Record):
    """Memory that torch took of one GPU.

    Attributes:
        name: What the GPU calls itself.
        peak_allocated_bytes: Most that tensors filled.
        peak_reserved_bytes: Most that was held, cached blocks included.
    """

    name: str
    peak_allocated_bytes: int
    peak_reserved_bytes: int


class MemoryRecord(_Record):
    """Peak memory of a run, the largest of all calls, and the batches that fitted.

    Attributes:
        peak_rss_bytes: Resident memory of the process, libraries and earlier runs of the process included.
        peak_rss_children_bytes: That of its largest finished child; 0 without any.
        devices: GPUs by torch's name.
        images_per_call: Images per generator call at the end of the last call that made images; null if none did.
        unet_rows_per_call: Most rows per UNet call then; null for generators that do not say.
    """

    peak_rss_bytes: int = 0
    peak_rss_children_bytes: int = 0
    devices: dict[str, DeviceMemoryRecord] = Field(default_factory=dict)
    images_per_call: int | None = None
    unet_rows_per_call: int | None = None


class TotalsRecord(_Record):
    """What a run took over all of its calls; an image counts once, however often the run was resumed.

    Attributes:
        images: Images of the run that were made and logged.
        seconds_generating: Seconds from one image to the next, summed over those images.
        seconds_per_image: Their mean.
        images_per_hour: The same as a rate.
        unet_calls: UNet calls for those images; null for generators that do not count.
        unet_rows: Rows of those calls.
        share_outside_networks: Share of the seconds of all stages in which neither the generator nor an evaluator
            worked; writing and reading images meanwhile, in the background, does not count. Of several workers it is
            the mean one's. Null where no network worked.
    """

    images: int = 0
    seconds_generating: float = 0.0
    seconds_per_image: float | None = None
    images_per_hour: float | None = None
    unet_calls: int | None = None
    unet_rows: int | None = None
    share_outside_networks: float | None = None


class RunRecord(_Record):
    """``run.json``: what was asked, with what, on which machine, and how far it came.

    Attributes:
        schema_version: Version of this file.
        identity: `IdentityV1` as JSON.
        identity_sha256: Its hash.
        status: "started", "success" or "error".
        model: Name of the generator on the command line.
        checkpoint: Path of the checkpoint as given, None for the default.
        benchmark: The benchmark's definition.
        settings_asked: Settings as the user gave them.
        settings_resolved: Settings after the recommended values were filled in.
        versions: Versions of the packages.
        environment: Facts about the machine.
        timings: Seconds per stage, summed over all calls.
        counts: Images asked, failed, and missing from a folder of ready images.
        seconds_in_networks: Of those, the seconds in which the generator (loading included) or an evaluator worked;
            of several workers their mean.
        totals: Images, UNet calls and rates; null in files of earlier versions.
        memory: Peak memory and batch sizes; null in files of earlier versions.
        images_elsewhere: What was found in a folder of ready images, and what it was allowed; null for others.
        shard: ``i/n`` if the folder holds one shard of the run; null for a whole run.
        image_store: How images are kept: "files" or "archives".
        error: One line, if the last call failed.
        started_at: ISO time in UTC of the first call.
        updated_at: ISO time in UTC of the last write.
    """

    schema_version: Literal[1] = 1
    identity: dict[str, Any]
    identity_sha256: str
    status: Literal["started", "success", "error"] = "started"
    model: str
    checkpoint: str | None = None
    benchmark: dict[str, Any]
    settings_asked: dict[str, Any] = Field(default_factory=dict)
    settings_resolved: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    seconds_in_networks: dict[str, float] = Field(default_factory=dict)
    totals: TotalsRecord | None = None
    memory: MemoryRecord | None = None
    images_elsewhere: dict[str, Any] | None = None
    shard: str | None = None
    image_store: StoreKind = "files"
    error: str | None = None
    started_at: str | None = None
    updated_at: str | None = None


class MetricRecord(_Record):
    """One number of ``results.json``.

    Attributes:
        value: The number; null where nothing could be scored (never 0 in its place).
        ci95: 95 % interval over images, null where none was computed.
        n_scored: Units (instances, or images for FID) behind the number.
        n_unscored: Units that could not be scored.
        unit: "fraction", "distance" or "score".
        higher_is_better: Direction.
        reasons: Why units were not scored, with counts.
        details: Facts that the number depends on (reference set, thresholds).
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    n_scored: int
    n_unscored: int = 0
    unit: str = "fraction"
    higher_is_better: bool = True
    reasons: dict[str, int] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)


class EvaluatorRecord(_Record):
    """An evaluator behind the numbers of ``results.json``; ``run.json`` has all of its settings.

    Attributes:
        name: Name, or path as given.
        kind: Which adapter and network.
        sha256: Hash of each file that it was made from, by file name.
    """

    name: str
    kind: str
    sha256: dict[str, str] = Field(default_factory=dict)


class SliceRecord(_Record):
    """The mean of a number over the requested instances of one bin.

    Attributes:
        value: The mean; null where nothing could be scored.
        n_scored: Instances behind it.
        n_unscored: Instances of the bin that could not be scored.
        ci95: 95 % interval over images, null where none was computed.
    """

    value: float | None
    n_scored: int
    n_unscored: int = 0
    ci95: tuple[float, float] | None = None


class FailuresRecord(_Record):
    """What went wrong, by kind; see `metrics.classify_failures`.

    Attributes:
        counts: Requested instances of every kind, "correct" included.
        ap50: AP50 of what was asked, attributes included; null where the size of objects is free.
        ap50_gains: What putting each kind right would add to it.
        n_extra: Objects that nobody asked for.
        n_unscored: Requested instances without a kind.
    """

    counts: dict[str, int]
    ap50: float | None = None
    ap50_gains: dict[str, float] = Field(default_factory=dict)
    n_extra: int = 0
    n_unscored: int = 0


class ResultsRecord(_Record):
    """``results.json``: the numbers of one run. It holds no times, so equal runs give equal files.

    Attributes:
        schema_version: Version of this file.
        identity_sha256: Hash of the run's identity.
        benchmark: Benchmark name.
        benchmark_version: Its version.
        edition: "strict" or "paper".
        model: Name of the generator.
        evaluators: The evaluators by role: "detector", "image_text", "features".
        metrics_asked: Names of the benchmark's numbers, so that a missing one is noticed; null in older files.
        metrics: The numbers by name.
        slices: Numbers per instance by name, slice and bin.
        failures: What went wrong; null without a detector.
        counts: Images and instances, asked, ignored and missing.
    """

    schema_version: Literal[1] = 1
    identity_sha256: str
    benchmark: str
    benchmark_version: int
    edition: str
    model: str
    evaluators: dict[str, EvaluatorRecord] = Field(default_factory=dict)
    metrics_asked: list[str] | None = None
    metrics: dict[str, MetricRecord]
    slices: dict[str, dict[str, dict[str, SliceRecord]]] = Field(default_factory=dict)
    failures: FailuresRecord | None = None
    counts: dict[str, int] = Field(default_factory=dict)


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Reads ``run.json`` or ``results.json``.

    Args:
        path: The file.
        kind: `RunRecord` or `ResultsRecord`.

    Returns:
        The record.

    Raises:
        InputError: If the file is missing, no JSON, or does not fit; names the field.
    """
    try:
        data = json.loads(read_file(path, _MOST_BYTES))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the benchmark first") from None
    except (OSError, ValueError, RecursionError) as error:  # also integers of thousands of digits
        raise InputError(f"{path}: unreadable ({error}); delete it or use --fresh") from error
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(root)"
        raise InputError(f"{path}: field {field}: {first['msg']}") from error


def export_schemas(folder: Path) -> list[Path]:
    """Writes the JSON Schema of both files into a folder and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, model in (("run", RunRecord), ("results", ResultsRecord)):
        path = folder / f"{name}.schema.json"
        write_json(path, model.model_json_schema())
        paths.append(path)
    return paths


if __name__ == "__main__":
    export_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
