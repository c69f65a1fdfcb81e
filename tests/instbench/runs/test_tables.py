from __future__ import annotations

import pyarrow as pa
import pytest

from instbench.runs.tables import ObservationTable

SCHEMA = pa.schema([("image_key", pa.string()), ("image_sha256", pa.string()), ("value", pa.int64())])


def table(folder, maker=None) -> ObservationTable:
    return ObservationTable(folder, "things", SCHEMA, maker or {"weights": "a"})


def row(key: str, digest: str = "x", value: int = 1) -> dict[str, object]:
    return {"image_key": key, "image_sha256": digest, "value": value}


def test_flushed_rows_survive_and_finish_joins_them(tmp_path):
    first = table(tmp_path)
    first.add(row("b"))
    first.flush()
    first.add(row("lost"))
    second = table(tmp_path)
    assert sorted(second.rows) == ["b"]
    assert second.has("b", "x")
    assert not second.has("b", "other image")
    second.add(row("a"))
    second.flush()
    second.finish(["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["things.parquet"]
    assert list(table(tmp_path).rows) == ["a", "b"]


def test_rows_of_another_maker_are_ignored(tmp_path):
    first = table(tmp_path)
    first.add(row("a"))
    first.flush()
    first.finish(["a"])
    assert table(tmp_path, {"weights": "b"}).rows == {}


@pytest.mark.parametrize("content", [b"", b"PAR1 torn"])
def test_a_torn_file_is_observed_again(tmp_path, content):
    (tmp_path / "things.parquet").write_bytes(content)
    assert table(tmp_path).rows == {}


def test_a_row_observed_again_replaces_the_old_one(tmp_path):
    first = table(tmp_path)
    first.add(row("a", "old", 1))
    first.flush()
    first.add(row("a", "new", 2))
    first.flush()
    assert table(tmp_path).rows["a"]["value"] == 2
