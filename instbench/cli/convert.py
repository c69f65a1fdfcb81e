"""`instbench convert`: published checkpoints to pipeline folders, and back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from instbench import defaults
from instbench.cli.output import say
from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a published checkpoint into a folder for --checkpoint",
        description="Reads an InstanceDiffusion or GLIGEN checkpoint without running any code in it and writes a "
        "pipeline folder of diffusers; with --to-published the other way round. --format ultralytics turns the .pt "
        "of a YOLO detector into a folder for --detector.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help=".pth or .safetensors file, or a GLIGEN pipeline folder"
    )
    parser.add_argument(
        "output", type=Path, metavar="OUT", help="folder to write (a file with --to-published)"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="tokenizer of CLIP ViT-L/14, or a pipeline folder with it",
    )
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="configuration in place of the one in the file"
    )
    parser.add_argument("--dtype", choices=("float32", "float16"), default=defaults.CONVERT_DTYPE)
    parser.add_argument(
        "--format", choices=("auto", "instancediffusion", "gligen", "ultralytics"), default="auto"
    )
    parser.add_argument(
        "--weights",
        choices=("auto", "ema", "model"),
        default="auto",
        help="which weights of the UNet (default: the averaged ones, if there are any, as published)",
    )
    parser.add_argument(
        "--to-published",
        action="store_true",
        help="CKPT is a folder, OUT a .safetensors with published names",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion at OUT")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api

    if args.format == "ultralytics":
        return _run_detector(args)
    done = api.convert(
        args.checkpoint,
        args.output,
        tokenizer=args.tokenizer,
        config=args.config,
        dtype=args.dtype,
        format=args.format,
        weights=args.weights,
        to_published=args.to_published,
        overwrite=args.overwrite,
    )
    if args.json:
        facts = {name: getattr(done, name) for name in ("kind", "weights", "dtype", "parameters", "left_out")}
        print(json.dumps({"output": str(done.output), **facts}, indent=2))
        return EXIT_DONE
    say(
        f"{args.checkpoint}: {done.kind}, {done.parameters:,} parameters in the UNet ({done.weights} weights)"
    )
    if done.left_out:
        say(f"left out, not needed for images: {', '.join(done.left_out)}")
    say(f"written: {done.output} ({done.dtype})")
    return EXIT_DONE


def _run_detector(args: argparse.Namespace) -> int:
    from instbench import api

    card = api.convert_detector(args.checkpoint, args.output, overwrite=args.overwrite)
    if args.json:
        print(json.dumps({"output": str(args.output), **card.model_dump(mode="json")}, indent=2))
        return EXIT_DONE
    say(f"{args.checkpoint}: {card.kind}, {len(card.categories)} categories, input {card.image_size} pixels")
    say(f"written: {args.output}")
    return EXIT_DONE
