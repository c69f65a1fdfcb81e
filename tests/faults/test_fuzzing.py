"""Bytes and values of any kind in the files that are read: only `InputError` may come out."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instbench.benchmarks.loading import BENCHMARK_FOLDER, read_benchmark
from instbench.datasets.coco import CocoAnnotations
from instbench.errors import InputError
from instbench.layouts.serialization import read_jsonl
from instbench.runs.lock import read_owner
from instbench.runs.records import ResultsRecord, RunRecord, read_record
from tests.faults import corpus
from tests.instbench.datasets.test_fuzz import odd_values, places

pytestmark = pytest.mark.faults
CASES = 150

LAYOUT = {
    "image_key": "a", "image_id": 1, "width": 48, "height": 48, "caption": "A cat.",
    "instances": [
        {"phrase": "a cat", "category": "cat", "category_id": 1, "annotation_id": 1,
         "box_xyxy": [0.1, 0.1, 0.5, 0.5], "point_xy": [0.3, 0.3], "scribble_xy": [[0.2, 0.2]],
         "mask": {"size": [48, 48], "counts": "PT1"}}
    ],
}  # fmt: skip
RESULTS = {
    "schema_version": 1, "identity_sha256": "0", "benchmark": "b", "benchmark_version": 1,
    "edition": "strict", "model": "m", "counts": {"images": 1},
    "metrics": {"ap": {"value": 0.5, "ci95": [0.1, 0.9], "n_scored": 1, "details": {"a": [1]}}},
}  # fmt: skip
RUN = {"identity": {"seed": 0}, "identity_sha256": "0", "model": "m", "benchmark": {"name": "b"}}
BENCHMARK = yaml.safe_load((BENCHMARK_FOLDER / "shapes-box.strict.yaml").read_text(encoding="utf-8"))

READERS: dict[str, tuple[Any, Any]] = {
    "layouts": (LAYOUT, read_jsonl),
    "annotations": (corpus.instances(), CocoAnnotations.read),
    "results": (RESULTS, lambda path: read_record(path, ResultsRecord)),
    "run": (RUN, lambda path: read_record(path, RunRecord)),
    "lock": ({"pid": 1, "host": "h", "boot_id": "", "process_start": "", "since": ""}, read_owner),
    "benchmark": (BENCHMARK, read_benchmark),
}


def text_of(value: Any) -> str:
    return json.dumps(value)


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def read(kind: str, path: Path) -> None:
    try:
        READERS[kind][1](path)
    except InputError as error:
        if "\n" in str(error):
            pytest.fail(f"{kind}: more than one line: {error}")


quick = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("kind", READERS)
@quick
@given(data=st.data())
def test_odd_values_anywhere(kind, tmp_path, count, data):
    value = READERS[kind][0]
    where = data.draw(st.sampled_from(list(places(value))))
    path = tmp_path / "file.json"
    with contextlib.suppress(UnicodeEncodeError):
        path.write_text(text_of(replaced(value, where, data.draw(odd_values))), encoding="utf-8")
    read(kind, path)
    count("odd values")


@pytest.mark.parametrize("kind", READERS)
@quick
@given(data=st.data())
def test_damaged_bytes_anywhere(kind, tmp_path, count, data):
    content = bytearray(text_of(READERS[kind][0]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        content = content or bytearray(b"x")
    path = tmp_path / "file.json"
    path.write_bytes(bytes(content))
    read(kind, path)
    count("damaged bytes")


@pytest.mark.parametrize("name", corpus.json_files())
@pytest.mark.parametrize("kind", READERS)
def test_deep_and_endless_files(kind, name, tmp_path, count):
    path = tmp_path / "file.json"
    path.write_text(corpus.json_files()[name])
    read(kind, path)
    count("deep files")
