"""`instbench report`: a run, or two of them side by side, as an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.errors import EXIT_DONE, InputError

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
        "other", type=Path, metavar="RUN2", nargs="?", help="another one, beside it on the same layouts"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="page to write (default for one run: RUN/report.html)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.reports.html import build_comparison, build_report

    if args.other is None:
        print(build_report(args.run, args.output))
        return EXIT_DONE
    if args.output is None:
        raise InputError("-o FILE is missing: where to write the page of two runs")
    print(build_comparison(args.run, args.other, args.output))
    return EXIT_DONE
