from __future__ import annotations

import pytest

from instbench.benchmarks.freeze import freeze
from instbench.benchmarks.loading import BENCHMARK_FOLDER, read_benchmark
from instbench.errors import InputError
from instbench.execution.layouts import checked_layouts
from tests.instbench.fakes import write_benchmark


def test_freeze_changes_the_checksum_and_nothing_else(tmp_path):
    source = (BENCHMARK_FOLDER / "shapes-point.strict.yaml").read_text()
    small = source.replace("count: 256", "count: 4")
    path = tmp_path / "small.yaml"
    path.write_text(small)
    with pytest.raises(InputError, match="changed"):
        checked_layouts(read_benchmark(path))
    digest = freeze(path)
    assert len(checked_layouts(read_benchmark(path))) == 4
    before, after = small.splitlines(), path.read_text().splitlines()
    changed = [line for line, other in zip(after, before, strict=True) if line != other]
    assert changed == [f'  layouts_sha256: "{digest}"']


def test_a_file_without_a_checksum_line_is_refused(tmp_path):
    with pytest.raises(InputError, match="exactly one layouts_sha256 line"):
        freeze(write_benchmark(tmp_path))
