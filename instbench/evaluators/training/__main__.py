"""Command line of the training recipes: ``python -m instbench.evaluators.training --help``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from instbench.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, InputError

__all__ = ["main"]

logger = logging.getLogger("instbench.evaluators.training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one recipe, or measures a trained evaluator.

    Args:
        arguments: Command-line arguments; ``sys.argv`` by default.

    Returns:
        Exit code.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        _run(options)
    except InputError as error:
        logger.error("error: %s", error)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        logger.error("stopped; the same command continues from the last checkpoint")
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _run(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)
    if options.task == "measure":
        from instbench.evaluators.training.measure import measure

        figures = measure(options.evaluator, options.data, limit=options.limit, write=options.write)
        for name, value in figures.items():
            logger.info("%s %s", name, value)
        return
    from instbench.evaluators.training.recipes import train

    folder = train(
        options.task,
        options.data,
        options.limits or None,
        options.out,
        steps=options.steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
        tokenizer=options.tokenizer,
        start=options.start,
    )
    logger.info("saved %s", folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m instbench.evaluators.training", description=main.__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    for task, about in (
        ("detector", "ultralytics YOLO segmentation network"),
        ("image-text", "open_clip model of colours, textures and shapes"),
        ("features", "feature extractor for FID"),
    ):
        sub = tasks.add_parser(task, help=f"train the {about}")
        sub.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders of scenes")
        sub.add_argument(
            "--limits", type=int, nargs="+", help="scenes to take of each folder (default: the recipe's)"
        )
        sub.add_argument("-o", "--out", type=Path, required=True, help="folder of checkpoint, log and result")
        sub.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
        sub.add_argument("--learning-rate", type=float, help="peak rate (default: the recipe's)")
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
        sub.add_argument("--tokenizer", type=Path, help="CLIP tokenizer folder (image-text only)")
        sub.add_argument("--start", type=Path, help="evaluator folder to start from (detector only)")
    sub = tasks.add_parser("measure", help="measure a trained evaluator on held-out scenes")
    sub.add_argument("evaluator", type=Path, help="evaluator folder")
    sub.add_argument("--data", type=Path, required=True, help="COCO-format folder")
    sub.add_argument("--limit", type=int, help="number of scenes (default: all)")
    sub.add_argument("--write", action="store_true", help="keep the figures in evaluator.json")
    sub.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
