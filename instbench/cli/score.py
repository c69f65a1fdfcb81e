"""`instbench score`: score finished images, those of a run again or a folder made elsewhere."""

from __future__ import annotations

import argparse
from typing import Any

from instbench.cli.options import (
    EVALUATOR_OPTIONS,
    add_data_options,
    add_evaluator_options,
    add_network_options,
    add_slices_option,
    location,
    positive,
    session_from,
)
from instbench.cli.run import print_plans, report
from instbench.errors import InputError

__all__ = ["register", "run"]

_DATA = ("annotations", "captions", "images")
_FOLDER_ONLY = (
    "edition",
    "seed",
    "output",
    "name",
    "limit",
    "allow_missing",
    "resize",
    "allow_real",
    "fresh",
    "dry_run",
    *_DATA,
)


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("score", help="score finished runs again, or images made elsewhere")
    parser.add_argument(
        "path", type=location, metavar="PATH", help="a run, a folder of runs, or (with --benchmark) of images"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    add_slices_option(parser)
    folder = parser.add_argument_group("images made elsewhere")
    folder.add_argument("--benchmark", metavar="B", help="the benchmark that the images answer")
    folder.add_argument("-o", "--output", type=location, metavar="DIR", help="run folder to write")
    folder.add_argument("--edition", choices=("strict", "paper"), help="default: strict")
    folder.add_argument("--name", metavar="NAME", help="what to call the model in results")
    folder.add_argument("--limit", type=positive, metavar="N", help="only the first N layouts")
    folder.add_argument("--seed", type=int, metavar="S", help="default: 0")
    folder.add_argument(
        "--allow-missing",
        action="store_true",
        help="missing and unreadable images are misses, extra ones are left out",
    )
    folder.add_argument("--resize", action="store_true", help="squash images of another size to the canvas")
    folder.add_argument(
        "--allow-real", action="store_true", help="score them although they are the real images"
    )
    folder.add_argument("--fresh", action="store_true", help="delete the run that is in the folder first")
    folder.add_argument("--dry-run", action="store_true", help="check the images, and stop")
    add_data_options(parser)
    add_evaluator_options(parser)
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api
    from instbench.runs.mirror import opened
    from instbench.runs.remote import is_url

    shared = {name: getattr(args, name) for name in EVALUATOR_OPTIONS} | {"session": session_from(args)}
    if args.benchmark is None:
        given = [name for name in _FOLDER_ONLY if getattr(args, name) not in (None, False)]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise InputError(f"{option} is for images made elsewhere; add --benchmark B, or leave it out")
        return report(api.score(args.path, **shared), as_json=args.json, slices=args.slices)
    if is_url(args.path):
        raise InputError(f"{args.path}: images made elsewhere must be in a local folder; copy them")
    if api.is_run(args.path):
        raise InputError(f"{args.path}: is a run, which knows its benchmark; leave --benchmark out")
    if args.output is None:
        raise InputError("-o DIR is missing: where to write the run of these images")
    names = ("benchmark", "edition", "name", "limit", "seed", "allow_missing", "resize", "allow_real", *_DATA)
    arguments = {name: getattr(args, name) for name in names if getattr(args, name) is not None} | shared
    if args.dry_run:
        plan = api.plan_images(args.path, **arguments)
        with opened(args.output, write=False) as place:
            return print_plans([(plan, place.folder)], fresh=args.fresh, as_json=args.json, place=place)
    outcome = api.score_images(args.path, output=args.output, fresh=args.fresh, **arguments)
    return report([outcome], as_json=args.json, slices=args.slices)
