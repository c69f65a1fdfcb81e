"""Observation tables: one row per image, resumable, bound to what made them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from instbench.runs.atomic import atomic_path, canonical_json, make_folder, remove_temporary

__all__ = ["ObservationTable", "join_tables", "write_table"]

logger = logging.getLogger(__name__)

_MAKER = b"instbench.maker"


class ObservationTable:
    """Rows of one evaluator, one per image, in ``observations/<name>.parquet``.

    New rows are first flushed to small part files, so that an interrupted run keeps them; `finish`
    joins them. A file that another maker wrote (other weights, other thresholds) is ignored.

    Args:
        folder: The observations folder.
        name: Name of the table.
        schema: Columns; the first two are ``image_key`` and ``image_sha256``.
        maker: What makes the rows: the evaluator's identity and parameters.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema, maker: Mapping[str, Any]) -> None:
        self.path = folder / f"{name}.parquet"
        self.parts = folder / "parts"
        self.name = name
        self.schema = schema.with_metadata({_MAKER: canonical_json(dict(maker)).encode()})
        self.rows: dict[str, dict[str, Any]] = {}
        self._fresh: list[dict[str, Any]] = []
        self._part_count = 0
        for path in [self.path, *sorted(self.parts.glob(f"{name}-*.parquet"))]:
            for row in self._read(path):
                self.rows[row["image_key"]] = row

    def _read(self, path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            logger.warning("%s: unreadable (%s); observed again", path, error)
            return []
        metadata = table.schema.metadata or {}
        if metadata.get(_MAKER) != self.schema.metadata[_MAKER] or table.schema.names != self.schema.names:
            return []
        columns = [_values(table[name]) for name in table.schema.names]
        return [dict(zip(table.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def has(self, image_key: str, image_sha256: str) -> bool:
        """Returns True if the row of exactly this image is there."""
        row = self.rows.get(image_key)
        return row is not None and row["image_sha256"] == image_sha256

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row; it is safe on disk after the next `flush`."""
        self.rows[row["image_key"]] = row
        self._fresh.append(row)

    def flush(self) -> None:
        """Writes the rows added since the last flush as a part file."""
        if not self._fresh:
            return
        make_folder(self.parts)
        taken = {path.name for path in self.parts.glob(f"{self.name}-*.parquet")}
        while f"{self.name}-{self._part_count:05d}.parquet" in taken:
            self._part_count += 1
        path = self.parts / f"{self.name}-{self._part_count:05d}.parquet"
        write_table(path, pa.Table.from_pylist(self._fresh, schema=self.schema))
        self._fresh = []

    def finish(self, image_keys: Sequence[str]) -> None:
        """Joins everything into one file, in the order of the keys, and removes the parts."""
        rows = [self.rows[key] for key in image_keys if key in self.rows]
        write_table(self.path, pa.Table.from_pylist(rows, schema=self.schema))
        for path in self.parts.glob(f"{self.name}-*.parquet"):
            path.unlink()
        if self.parts.exists():
            remove_temporary(self.parts)
            if not any(self.parts.iterdir()):
                shutil.rmtree(self.parts, ignore_errors=True)


def join_tables(paths: Sequence[Path], target: Path, image_keys: Sequence[str]) -> bool:
    """Joins observation tables of one evaluator into one file, atomically.

    Args:
        paths: The tables.
        target: The file to write.
        image_keys: Which rows to keep, in this order; of a row that is there twice, the first.

    Returns:
        False if the tables cannot be read or were not made by the same evaluator with the same settings;
        nothing is written then.
    """
    try:
        tables = [pq.read_table(path) for path in paths]
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s: unreadable (%s); observed again", target.name, error)
        return False
    schemas = [table.schema for table in tables]
    if not all(schema.equals(schemas[0], check_metadata=True) for schema in schemas):
        return False
    if "image_key" not in schemas[0].names:
        return False
    joined = pa.concat_tables(tables)
    position: dict[str, int] = {}
    for index, key in enumerate(joined["image_key"].to_pylist()):
        position.setdefault(key, index)
    write_table(target, joined.take([position[key] for key in image_keys if key in position]))
    return True


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    """Values of a column; vectors of float32 stay arrays, a fifth of the memory of lists."""
    if column.type == pa.list_(pa.float32()):
        vectors: Sequence[Any] = column.to_numpy(zero_copy_only=False)
        return vectors
    values: Sequence[Any] = column.to_pylist()
    return values


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
