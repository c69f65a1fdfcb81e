"""`instbench generate`: make the images only."""

from __future__ import annotations

import argparse
from typing import Any

from instbench.cli.options import add_run_options, executor_arguments, folder_arguments, run_arguments
from instbench.cli.run import dry_run, report

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("generate", help="make the images of benchmarks, without scoring")
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api

    if args.dry_run:
        return dry_run(args)
    outcomes = api.generate(**run_arguments(args), **executor_arguments(args), **folder_arguments(args))
    return report(outcomes, as_json=args.json)
