"""`instbench validate`: all problems of a data file at once."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from instbench.cli.output import say
from instbench.errors import EXIT_BAD_INPUT, EXIT_DONE

__all__ = ["register", "run"]

_SHOWN = 100


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "validate",
        help="check annotations, captions, detection results or a layouts file",
        description="Lists every problem of FILE at once. Exit code 2 if there are errors; warnings pass.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="COCO or LVIS instances, captions or detection results (.json), or layouts (.jsonl)",
    )
    parser.add_argument("--captions", type=Path, metavar="FILE", help="COCO captions that belong to FILE")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images; each one is opened")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="instances file that the detections in FILE are for"
    )
    parser.add_argument("--all", action="store_true", help=f"show all problems, not only the first {_SHOWN}")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.datasets.reporting import validate_file

    report = validate_file(
        args.file, captions=args.captions, images_dir=args.images, annotations=args.annotations
    )
    code = EXIT_BAD_INPUT if report.errors else EXIT_DONE
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
        return code
    for position, finding in enumerate(report.findings):
        if position == _SHOWN and not args.all:
            say(f"... and {len(report.findings) - _SHOWN} more (--all shows them)")
            break
        say(f"{finding.source}: {finding.problem.severity}: {finding.problem}")
    counts = ", ".join(f"{value} {name}" for name, value in report.counts.items())
    say(f"{args.file}: {report.errors} errors, {report.warnings} warnings; {counts}")
    return code
