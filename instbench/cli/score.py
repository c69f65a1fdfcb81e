"""`instbench score`: observe and score finished images again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.cli.options import EVALUATOR_OPTIONS, add_evaluator_options, add_network_options, session_from
from instbench.cli.run import report

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("score", help="score the images of finished runs again")
    parser.add_argument("path", type=Path, metavar="DIR_OR_RUN", help="a run folder, or a folder of runs")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    add_evaluator_options(parser)
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api

    evaluators = {name: getattr(args, name) for name in EVALUATOR_OPTIONS}
    return report(api.score(args.path, **evaluators, session=session_from(args)), as_json=args.json)
