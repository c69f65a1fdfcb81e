"""`instbench report`: a run, or two of them side by side, as an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "report",
        help="write a page with the numbers and images of a run",
        description="Writes one HTML page that opens from a file, without server or network.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a scored run folder")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="page to write (default: RUN/report.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.reports.html import build_report

    print(build_report(args.run, args.output))
    return EXIT_DONE
