"""Finds and reads benchmark files."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from instbench.benchmarks.schema import Benchmark, CocoData
from instbench.defaults import EDITION
from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.registry import did_you_mean, load_target

__all__ = ["BENCHMARK_FOLDER", "benchmark_files", "benchmark_names", "load_benchmark", "read_benchmark"]

BENCHMARK_FOLDER = Path(__file__).parent
_GROUP = "instbench.benchmarks"
_MOST_BYTES = 2**20


def benchmark_files() -> dict[str, dict[str, Path]]:
    """Returns the known files by benchmark name and edition.

    Built-in files are ``<name>.<edition>.yaml`` in this folder. A plug-in (entry point
    ``instbench.benchmarks``) names a folder of such files, or a function that returns one.
    """
    folders = [BENCHMARK_FOLDER]
    for point in metadata.entry_points(group=_GROUP):
        target = load_target(point.value, f"benchmarks {point.name}")
        folders.append(Path(target() if callable(target) else target))
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            name, _, edition = path.stem.rpartition(".")
            if name:
                found.setdefault(name, {}).setdefault(edition, path)
    return found


def benchmark_names() -> list[str]:
    """Returns the names of all known benchmarks, sorted."""
    return sorted(benchmark_files())


def load_benchmark(name: str, edition: str = EDITION) -> Benchmark:
    """Loads a benchmark by name, or from the path of a YAML file.

    Args:
        name: Benchmark name, or a path that ends in ``.yaml``.
        edition: "strict" or "paper"; a file given by path must agree.

    Returns:
        The benchmark.

    Raises:
        InputError: If the name or edition is unknown, the file does not fit the schema, or it takes the name
            of a known benchmark.
    """
    if name.endswith((".yaml", ".yml")):
        benchmark = read_benchmark(Path(name))
        if benchmark.edition != edition:
            raise InputError(f"{name}: edition is {benchmark.edition!r}; add --edition {benchmark.edition}")
        known = benchmark_files().get(benchmark.name, {}).values()
        if known and Path(name).resolve() not in {path.resolve() for path in known}:
            raise InputError(
                f"{name}: field name: {benchmark.name!r} is the name of another benchmark; choose a new one"
            )
        return benchmark
    files = benchmark_files()
    if name not in files:
        raise InputError(f"unknown benchmark {name!r}; {did_you_mean(name, list(files))}")
    if edition not in files[name]:
        raise InputError(f"{name} has no edition {edition!r}; it has: {', '.join(sorted(files[name]))}")
    path = files[name][edition]
    benchmark = read_benchmark(path)
    if (benchmark.name, benchmark.edition) != (name, edition):
        raise InputError(
            f"{path}: says {benchmark.name}, edition {benchmark.edition}; the file must be named after it"
        )
    return benchmark


def read_benchmark(path: Path) -> Benchmark:
    """Reads a benchmark file; relative data paths are meant from the file's folder.

    Raises:
        InputError: If the file is unreadable or a field is wrong; names the file and the field.
    """
    try:
        data: Any = yaml.safe_load(read_file(path, _MOST_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such benchmark file") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: unreadable ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: must be a mapping of fields, see `instbench ls benchmarks`")
    try:
        benchmark = Benchmark.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(root)"
        raise InputError(f"{path}: field {field}: {first['msg']}") from error
    if isinstance(benchmark.dataset, CocoData):
        benchmark = benchmark.model_copy(update={"dataset": _anchored(benchmark.dataset, path.parent)})
    return benchmark


def _anchored(data: CocoData, folder: Path) -> CocoData:
    names = ("annotations", "captions", "images")
    paths = {name: getattr(data, name) for name in names}
    folder = folder.absolute()  # runs keep these paths and may be scored from elsewhere
    return data.model_copy(update={name: folder / path for name, path in paths.items() if path is not None})
