"""`instbench data`: fetches, verifies and prepares data sets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from instbench.cli.output import say
from instbench.defaults import CANVAS_SIZE
from instbench.errors import EXIT_DONE, EXIT_FAILURES, InputError

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("data", help="fetch, verify and prepare data sets")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _register_fetch(actions)
    _register_verify(actions)
    _register_prepare(actions)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    actions = {"fetch": _fetch, "verify": _verify, "prepare": _prepare}
    return actions[args.action](args)


def _register_fetch(actions: Any) -> None:
    parser = actions.add_parser(
        "fetch",
        help="download a public data set",
        description="Downloads, checks and unpacks a data set. Interrupt it and call it again: it goes on.",
    )
    parser.add_argument("name", metavar="NAME", help="coco-val2017 or lvis-v1-val")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the data sets; NAME becomes a folder in it (default: $INSTBENCH_DATA, else the cache)",
    )
    parser.add_argument("--mirror", metavar="URL", help="address instead of the official scheme and host")
    parser.add_argument("--no-images", action="store_true", help="annotations only")
    parser.add_argument("--keep-archives", action="store_true", help="keep the archives in DIR/archives")


def _register_verify(actions: Any) -> None:
    parser = actions.add_parser(
        "verify",
        help="compare data with their manifest",
        description="Lists all files that are missing, changed or unknown. Exit code 1 if there are any.",
    )
    parser.add_argument(
        "target", metavar="DIR|NAME", help="a fetched or prepared folder, or a data set's name"
    )
    parser.add_argument("--quick", action="store_true", help="compare names and sizes only, not checksums")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def _register_prepare(actions: Any) -> None:
    parser = actions.add_parser(
        "prepare",
        help="write the square-canvas ground truth, or render a Shapes world",
        description="NAME is a fetched data set (square-canvas ground truth), shapes or shapes-hard (rendered "
        "scenes); without it, the files of --annotations are taken.",
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="coco-val2017, lvis-v1-val, shapes or shapes-hard"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="COCO or LVIS instances file")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="COCO captions of --annotations")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images; they are resized to the canvas too"
    )
    parser.add_argument(
        "--size", type=int, default=CANVAS_SIZE, help=f"side of the canvas in pixels (default: {CANVAS_SIZE})"
    )
    parser.add_argument("--split", help="Shapes: train, val or test (default: train)")
    parser.add_argument("--count", type=int, help="Shapes: number of scenes (default: that of the split)")


def _fetch(args: argparse.Namespace) -> int:
    from instbench.datasets.fetching import fetch_dataset

    report = fetch_dataset(
        args.name,
        args.output,
        mirror=args.mirror,
        with_images=not args.no_images,
        keep_archives=args.keep_archives,
    )
    counts = ", ".join(f"{value} {key}" for key, value in report.manifest.counts.items())
    say(f"{report.folder}: {'already complete' if report.was_there else 'complete'}; {counts}")
    return EXIT_DONE


def _verify(args: argparse.Namespace) -> int:
    from instbench.datasets.manifest import data_folders, verify_folder

    folders = data_folders(args.target)
    problems = {folder: verify_folder(folder, quick=args.quick) for folder in folders}
    total = sum(map(len, problems.values()))
    if args.json:
        listed = {
            str(folder): [{"path": problem.where, "message": problem.message} for problem in found]
            for folder, found in problems.items()
        }
        print(json.dumps({"quick": args.quick, "problems": total, "folders": listed}, indent=2))
        return EXIT_FAILURES if total else EXIT_DONE
    for folder, found in problems.items():
        for problem in found:
            say(f"{folder}: {problem}")
        say(f"{folder}: {len(found)} problems{' (names and sizes only)' if args.quick else ''}")
    return EXIT_FAILURES if total else EXIT_DONE


def _prepare(args: argparse.Namespace) -> int:
    if args.name in ("shapes", "shapes-hard"):
        return _prepare_shapes(args)
    for option in ("split", "count"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option}: is for shapes and shapes-hard only; leave it out")
    from instbench.datasets.home import dataset_paths
    from instbench.datasets.prepare import prepare_canvas

    if (args.name is None) == (args.annotations is None):
        raise InputError("data prepare: give either the NAME of a data set or --annotations FILE")
    annotations, captions, name = args.annotations, args.captions, "custom"
    if args.name is not None:
        if captions is not None:
            raise InputError("--captions: goes with --annotations; a data set has its own")
        paths = dataset_paths(args.name)
        annotations, captions, name = paths.annotations, paths.captions, args.name
    manifest = prepare_canvas(
        annotations, args.output, captions=captions, images_dir=args.images, size=args.size, name=name
    )
    counts = ", ".join(f"{value} {key}" for key, value in manifest.counts.items())
    say(f"{args.output}: {args.size}x{args.size}; {counts}")
    return EXIT_DONE


def _prepare_shapes(args: argparse.Namespace) -> int:
    from instbench.datasets.shapes import export_coco

    for option in ("annotations", "captions", "images"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option}: does not go with {args.name}, which is rendered; leave it out")
    if args.size != CANVAS_SIZE:
        raise InputError(f"--size: {args.name} is rendered at its own size; leave it out")
    folder = export_coco(args.name, args.split or "train", args.count, args.output)
    say(f"{folder}: images/, instances.json, captions.json")
    return EXIT_DONE
