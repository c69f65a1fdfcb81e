from __future__ import annotations

import json
from pathlib import Path

import pytest

from instbench.errors import InputError
from instbench.runs.environment import machine, package_versions
from instbench.runs.records import MetricRecord, ResultsRecord, RunRecord, export_schemas, read_record

FIXTURES = Path(__file__).parent / "fixtures"


def test_schemas_are_exported_as_json(tmp_path):
    paths = export_schemas(tmp_path)
    assert [path.name for path in paths] == ["run.schema.json", "results.schema.json"]
    schema = json.loads(paths[1].read_text())
    assert "metrics" in schema["required"]
    assert schema["properties"]["schema_version"]["const"] == 1


def test_null_is_kept_apart_from_zero_and_later_fields_are_tolerated():
    record = MetricRecord(value=None, n_scored=0, n_unscored=3, reasons={"no image": 3})
    results = ResultsRecord(
        identity_sha256="x",
        benchmark="b",
        benchmark_version=1,
        edition="strict",
        model="m",
        metrics={"m": record},
    )
    data = json.loads(results.model_dump_json())
    assert data["metrics"]["m"]["value"] is None
    data["from_a_later_version"] = 1
    assert ResultsRecord.model_validate(data) == results


def test_environment_names_versions_and_machine():
    assert {"python", "numpy", "torch"} <= set(package_versions())
    assert machine()["cpu_count"] >= 1


def test_files_of_earlier_versions_are_read():
    results = read_record(FIXTURES / "results-v1.json", ResultsRecord)
    assert results.metrics
    assert results.failures is None
    assert results.slices == {}
    run = read_record(FIXTURES / "run-v1.json", RunRecord)
    assert run.status == "success"
    assert run.identity_sha256 == results.identity_sha256


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema_version": ' + "9" * 6000 + "}", "{", ""])
def test_what_json_cannot_read_is_an_input_error(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"run\.json: unreadable"):
        read_record(path, RunRecord)
