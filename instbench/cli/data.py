"""`instbench data`: writes datasets as COCO-format folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("data", help="prepare datasets as COCO-format folders")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    prepare = actions.add_parser("prepare", help="render a split of a Shapes world")
    prepare.add_argument("world", help="shapes or shapes-hard")
    prepare.add_argument("--split", default="train", help="train, val or test (default: train)")
    prepare.add_argument("--count", type=int, help="number of scenes (default: that of the split)")
    prepare.add_argument("-o", "--output", type=Path, required=True, help="folder to write")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.datasets.shapes import export_coco

    folder = export_coco(args.world, args.split, args.count, args.output)
    print(f"{folder}: images/, instances.json, captions.json")
    return EXIT_DONE
