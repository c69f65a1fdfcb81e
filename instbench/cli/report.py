"""`instbench report`: a run, or two of them side by side, as an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.cli.options import location
from instbench.cli.output import say
from instbench.errors import EXIT_DONE, InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "report",
        help="write a page with the numbers and images of a run",
        description="Writes one HTML page that opens from a file, without server or network.",
    )
    parser.add_argument("run", type=location, metavar="RUN", help="a scored run folder, or its address")
    parser.add_argument(
        "other", type=location, metavar="RUN2", nargs="?", help="another one, beside it on the same layouts"
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
    from instbench.runs.mirror import opened

    if args.other is None:
        with opened(args.run, write=args.output is None) as place:
            page = build_report(place.folder, args.output)
            say(page if args.output is not None else place.named(page))
        return EXIT_DONE
    if args.output is None:
        raise InputError("-o FILE is missing: where to write the page of two runs")
    with opened(args.run, write=False) as place, opened(args.other, write=False) as other:
        say(build_comparison(place.folder, other.folder, args.output))
    return EXIT_DONE
