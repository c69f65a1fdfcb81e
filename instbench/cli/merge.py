"""`instbench merge`: join the shards of a run and score it."""

from __future__ import annotations

import argparse
from typing import Any

from instbench.cli.options import (
    add_image_store_option,
    add_network_options,
    add_slices_option,
    location,
    session_from,
)
from instbench.cli.run import report

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("merge", help="join the shards of a run (run --shard) and score it")
    parser.add_argument("shards", nargs="+", type=location, metavar="SHARD", help="folder of a shard")
    parser.add_argument(
        "-o", "--output", type=location, required=True, metavar="RUN", help="run folder to write"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    add_image_store_option(parser, "that of the first shard")
    add_slices_option(parser)
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api

    outcomes = api.merge(args.shards, args.output, image_store=args.image_store, session=session_from(args))
    return report(outcomes, as_json=args.json, slices=args.slices)
