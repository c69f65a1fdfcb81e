"""Options that several verbs share, and how their values become arguments of `instbench.api`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench import defaults
from instbench.errors import InputError

__all__ = [
    "EVALUATOR_OPTIONS",
    "add_data_options",
    "add_evaluator_options",
    "add_executor_options",
    "add_image_store_option",
    "add_network_options",
    "add_run_options",
    "add_sampling_options",
    "add_slices_option",
    "executor_arguments",
    "folder_arguments",
    "local_path",
    "location",
    "positive",
    "run_arguments",
    "session_from",
]

EVALUATOR_OPTIONS = ("detector", "image_text", "features")


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give auto or a number of 1 or more")


def _shard(text: str) -> Any:
    from instbench.execution.shards import Shard

    try:
        return Shard.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--shard ")) from None


def location(text: str) -> Path | str:
    """Reads a path, or an address such as ``s3://bucket/run``, which a path would mangle."""
    return text if "://" in text else Path(text)


def local_path(text: str) -> Path:
    """Reads a path where an address will not do."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r}: give a local path, this verb takes no address")
    return Path(text)


def positive(text: str) -> int:
    """Reads a number of 1 or more."""
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give a number of 1 or more")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0.0 <= value <= 1.0:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: give a share from 0 to 1")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Adds where and how networks run."""
    group = parser.add_argument_group("networks")
    group.add_argument("--device", default=defaults.DEVICE, help="torch device (default: auto)")
    group.add_argument("--dtype", default=defaults.DTYPE, help="floating type of the model (default: auto)")
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        default=defaults.BATCH_SIZE,
        metavar="auto|N",
        help="images per call of the model; changes rounding at most (default: auto)",
    )


def _gpus(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number") from None


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Adds where the networks work."""
    group = parser.add_argument_group("many GPUs (needs instbench[ray])")
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default=defaults.EXECUTOR,
        help="this process, or workers of a Ray cluster (default: local)",
    )
    group.add_argument(
        "--address", metavar="auto|HOST:PORT", help="the cluster (default: one on this machine, for this run)"
    )
    group.add_argument("--workers", type=positive, metavar="N", help="workers (default: one per GPU, or one)")
    group.add_argument(
        "--gpus-per-worker",
        type=_gpus,
        metavar="G",
        help="GPUs of each, 0.5 for half a one (default: 1 if any)",
    )


def executor_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Turns parsed options into what `instbench.api.run` takes about the executor."""
    return {name: getattr(args, name) for name in ("executor", "address", "workers", "gpus_per_worker")}


def add_image_store_option(parser: argparse.ArgumentParser, default: str = "files") -> None:
    """Adds how a run folder keeps its images."""
    parser.add_argument(
        "--image-store",
        choices=defaults.IMAGE_STORES,
        help=f"keep images as one file each, or in tar archives of 1,000 (a new run's default: {default})",
    )


def add_slices_option(parser: argparse.ArgumentParser) -> None:
    """Adds the table of slices."""
    parser.add_argument(
        "--slices",
        action="store_true",
        help="also print every number by category, size, instances in the image, overlap and position",
    )


def add_evaluator_options(
    parser: argparse.ArgumentParser, title: str = "evaluators (default: those of the benchmark)"
) -> None:
    """Adds evaluators by name or path."""
    group = parser.add_argument_group(title)
    for option, what in (
        ("--detector", "detector: a .pt file of ultralytics, a folder"),
        ("--image-text", "image-text model: MODEL/TAG of open_clip, MODEL/TAG=FILE, a folder"),
        ("--features", "features for FID: a .pth file of Inception, a folder"),
    ):
        group.add_argument(option, metavar="NAME|PATH", help=f"{what}, a name (see ls evaluators), or none")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the user's own data."""
    data = parser.add_argument_group("your own data under the same protocol")
    data.add_argument("--annotations", type=Path, metavar="FILE", help="COCO-format instances")
    data.add_argument("--captions", type=Path, metavar="FILE", help="COCO-format captions")
    data.add_argument("--images", type=Path, metavar="DIR", help="the real images")


def add_sampling_options(
    parser: argparse.ArgumentParser, default: str = "the benchmark's or the model's own"
) -> None:
    """Adds the settings of the sampler."""
    sampling = parser.add_argument_group(f"sampling (default: {default})")
    sampling.add_argument("--num-inference-steps", type=positive, metavar="N")
    sampling.add_argument("--guidance-scale", type=float, metavar="G")
    sampling.add_argument("--alpha", type=_share, metavar="A", help="share of the steps with grounding on")
    sampling.add_argument("--mis", type=_share, metavar="S", help="share of the steps run per instance")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds everything that `run` and `generate` take."""
    parser.add_argument("benchmarks", nargs="+", metavar="BENCHMARK", help="name (see ls) or a .yaml file")
    parser.add_argument(
        "--model", metavar="M", help=f"name (see ls) or package.module:factory (default: {defaults.MODEL})"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="checkpoint of the model")
    parser.add_argument(
        "-o",
        "--output",
        type=location,
        required=True,
        metavar="DIR|URL",
        help="run folder, also s3://... and other addresses of fsspec; DIR/<benchmark> if several",
    )
    parser.add_argument("--edition", choices=("strict", "paper"), default=defaults.EDITION)
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N layouts")
    parser.add_argument("--seed", type=int, default=defaults.SEED, metavar="S")
    parser.add_argument("--fresh", action="store_true", help="delete the run that is in the folder first")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="make and observe only layouts I, I+N, I+2N, … of the run (I from 0), for `merge`",
    )
    add_image_store_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    add_sampling_options(parser)
    add_data_options(parser)
    add_evaluator_options(parser)
    add_network_options(parser)
    add_executor_options(parser)


def session_from(args: argparse.Namespace) -> Any:
    """Makes the session that the network options describe."""
    from instbench.execution.session import Session

    return Session(device=args.device, dtype=args.dtype, batch_size=args.batch_size)


def run_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Turns parsed options into the arguments of `instbench.api.plan_runs`."""
    from instbench.generators.base import SamplingSettings

    names = ["benchmarks", "output", "model", "checkpoint", "edition", "limit", "seed"]
    names += ["annotations", "captions", "images", *EVALUATOR_OPTIONS]
    arguments = {name: getattr(args, name) for name in names}
    arguments["sampling"] = SamplingSettings(
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        alpha=args.alpha,
        mis=args.mis,
    )
    arguments["session"] = session_from(args)
    return arguments


def folder_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Turns parsed options into what `instbench.api.run` takes about the run folder."""
    return {"fresh": args.fresh, "shard": args.shard, "image_store": args.image_store}
