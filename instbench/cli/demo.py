"""`instbench demo`: floor, baseline, reference model and ceiling on a small slice of the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench import defaults
from instbench.cli.options import add_network_options, local_path, session_from
from instbench.cli.output import make_console, say
from instbench.errors import EXIT_DONE

if TYPE_CHECKING:
    from instbench.runs.records import ResultsRecord

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("demo", help="the shipped models, floor and ceiling on a small slice")
    parser.add_argument("-o", "--output", type=local_path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument(
        "--limit", type=int, default=defaults.DEMO_LIMIT, metavar="N", help="layouts per benchmark"
    )
    parser.add_argument("--fresh", action="store_true", help="delete the runs that are in the folder first")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.execution.demo import CEILING, DemoRun, run_demo, write_pages
    from instbench.reports.summary import comparison_table

    console = make_console()
    columns: dict[str, dict[str, ResultsRecord]] = {}
    overlays: list[Path] = []
    runs: list[DemoRun] = []
    for one in run_demo(args.output, limit=args.limit, fresh=args.fresh, session=session_from(args)):
        console.print(f"{one.column}: {one.benchmark} done in {one.seconds:.0f} s")
        columns.setdefault(one.column, {})[one.benchmark] = one.results
        overlays += one.overlays
        runs.append(one)
    title = f"The first {args.limit} layouts of each benchmark, with 95 % intervals (FID over so few images is rough)"
    console.print(comparison_table(columns, ceiling=CEILING, title=title))
    say("asked and found, side by side:")
    for path in overlays:
        say(f"  {path}")
    for page in write_pages(args.output, runs):
        say(f"open in a browser: {page}")
    say(f"all images, records and numbers: {args.output}/<model>/<benchmark>/")
    return EXIT_DONE
