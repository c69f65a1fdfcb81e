"""Writes the checksum of a benchmark's layouts into its file.

``python -m instbench.benchmarks.freeze [NAME...]`` is for those who change a dataset or a layout rule
on purpose; raise the benchmark's version with it.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from instbench.benchmarks.loading import benchmark_files, read_benchmark
from instbench.benchmarks.schema import ShapesData
from instbench.errors import InputError
from instbench.execution.layouts import layouts_sha256, make_layouts
from instbench.runs.atomic import write_bytes

__all__ = ["freeze"]

logger = logging.getLogger(__name__)


def freeze(path: Path) -> str:
    """Recomputes the layouts of a benchmark file and writes their hash into it.

    Args:
        path: The YAML file; only its ``layouts_sha256`` line changes.

    Returns:
        The hash.

    Raises:
        InputError: If the file has no ``layouts_sha256`` line.
    """
    benchmark = read_benchmark(path)
    digest = layouts_sha256(make_layouts(benchmark))
    text, count = re.subn(
        r"(?m)^(\s*layouts_sha256:\s*)\S+$", rf'\g<1>"{digest}"', path.read_text(encoding="utf-8")
    )
    if count != 1:
        raise InputError(f"{path}: needs exactly one layouts_sha256 line")
    write_bytes(path, text.encode())
    return digest


def main(names: list[str]) -> int:
    """Freezes the named benchmarks, or all Shapes benchmarks."""
    for name, editions in sorted(benchmark_files().items()):
        for path in editions.values():
            if names and name not in names:
                continue
            if isinstance(read_benchmark(path).dataset, ShapesData):
                logger.info("%s %s", path.name, freeze(path))
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
