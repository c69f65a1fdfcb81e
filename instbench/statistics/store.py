"""``samples.npz`` of a run: what each number is made of by image, so that runs can be compared without networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench.errors import InputError
from instbench.runs.atomic import atomic_path
from instbench.statistics.average_precision import AP_NUMBERS, ApSamples
from instbench.statistics.samples import InfluenceSamples, RatioSamples, Samples
from metrics.functional.match_table import MatchTable

__all__ = ["RunSamples", "read_samples", "write_samples"]

_VERSION = 1
_MAX_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RunSamples:
    """Samples of a run.

    Attributes:
        image_keys: Keys of the layouts, in order; the images that all samples run over.
        metrics: Samples by metric.
    """

    image_keys: tuple[str, ...]
    metrics: dict[str, Samples]


def write_samples(path: Path, image_keys: Sequence[str], metrics: Mapping[str, Samples]) -> None:
    """Writes the samples of a run atomically.

    Args:
        path: The file.
        image_keys: Keys of the layouts, in order.
        metrics: Samples by metric; match tables that several share are written once.
    """
    arrays: dict[str, NDArray[Any]] = {}
    facts: dict[str, Any] = {"version": _VERSION, "image_keys": list(image_keys), "metrics": {}}
    tables: dict[int, int] = {}
    for number, (name, samples) in enumerate(metrics.items()):
        if isinstance(samples, RatioSamples):
            facts["metrics"][name] = {"kind": "ratio", "arrays": number}
            arrays[f"{number}.sums"], arrays[f"{number}.counts"] = samples.sums, samples.counts
        elif isinstance(samples, InfluenceSamples):
            facts["metrics"][name] = {"kind": "influence", "arrays": number, "point": samples.point}
            arrays[f"{number}.influences"] = samples.influences
        elif isinstance(samples, ApSamples):
            place = tables.setdefault(id(samples.table), len(tables))
            facts["metrics"][name] = {"kind": "ap", "table": place, "number": samples.number}
            for field in fields(MatchTable):
                value = getattr(samples.table, field.name)
                if value is not None:
                    arrays[f"table{place}.{field.name}"] = np.asarray(value)
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_samples(path: Path) -> RunSamples:
    """Reads the samples of a run; nothing in the file is run.

    Args:
        path: The file.

    Raises:
        InputError: If it is missing, damaged or of another version.
    """
    again = f"score it again with `instbench score {path.parent}`"
    if not path.is_file():
        raise InputError(f"{path}: no such file; the run was scored by an older version: {again}")
    try:
        with np.load(path, allow_pickle=False) as content:
            if sum(info.file_size for info in content.zip.infolist()) > _MAX_BYTES:
                raise InputError(f"{path}: unpacks to more than 4 GiB; {again}")
            facts = json.loads(content["facts"].tobytes())
            if facts["version"] != _VERSION:
                raise InputError(f"{path}: version {facts['version']} is unknown; {again}")
            keys = tuple(str(key) for key in facts["image_keys"])
            return RunSamples(keys, _metrics(content, facts["metrics"], len(keys)))
    except InputError:
        raise
    except Exception as error:  # whatever a damaged archive makes numpy and json raise
        raise InputError(f"{path}: damaged ({' '.join(str(error).split())[:120]}); {again}") from None


def _metrics(content: Any, entries: Mapping[str, Any], num_images: int) -> dict[str, Samples]:
    tables: dict[int, MatchTable] = {}
    result: dict[str, Samples] = {}
    for name, entry in entries.items():
        samples: Samples
        if entry["kind"] == "ratio":
            number = entry["arrays"]
            samples = RatioSamples(content[f"{number}.sums"], content[f"{number}.counts"])
        elif entry["kind"] == "influence":
            samples = InfluenceSamples(float(entry["point"]), content[f"{entry['arrays']}.influences"])
        elif entry["kind"] == "ap" and entry["number"] in AP_NUMBERS:
            place = entry["table"]
            if place not in tables:
                tables[place] = _table(content, place)
            samples = ApSamples(tables[place], entry["number"])
        else:
            raise ValueError(f"{name}: unknown kind")
        if samples.num_images != num_images:
            raise ValueError(f"{name}: {samples.num_images} images instead of {num_images}")
        result[name] = samples
    return result


def _table(content: Any, place: int) -> MatchTable:
    names = [field.name for field in fields(MatchTable) if f"table{place}.{field.name}" in content]
    arrays = {name: content[f"table{place}.{name}"] for name in names}
    arrays["num_categories"] = int(arrays["num_categories"])
    table = MatchTable(**arrays)
    for images in (table.images, table.truth_images):
        if len(images) and not 0 <= int(images.min()) <= int(images.max()) < len(table.image_ids):
            raise ValueError("a match of an image that is not there")
    return table
