"""`instbench ablate`: the paper's questions, asked of the shipped weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench import defaults
from instbench.cli.options import add_network_options, local_path, positive
from instbench.cli.output import say
from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("ablate", help="rerun the paper's ablations on Shapes")
    parser.add_argument("world", choices=("shapes",), help="where: the Shapes world and its shipped weights")
    parser.add_argument(
        "-o",
        "--output",
        type=local_path,
        required=True,
        metavar="DIR",
        help="folder of runs, tables and plots",
    )
    parser.add_argument(
        "--question",
        nargs="+",
        metavar="NAME",
        help="formats, hybrid, scaleu, masked-attention, alpha, mis; with --trained also trained-without, "
        "never-had, tokens",
    )
    parser.add_argument(
        "--trained",
        type=Path,
        metavar="DIR",
        help="folder of variants with weights of their own",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N layouts of each run")
    parser.add_argument("--seed", type=int, default=defaults.SEED, metavar="S")
    parser.add_argument("--num-inference-steps", type=positive, metavar="N")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench.execution.ablation import AblationSession, AblationSettings, answer, plan_ablation
    from instbench.execution.ablation_questions import choose_questions
    from instbench.reports.ablation import ablation_markdown, write_answers

    questions = choose_questions(args.question, args.trained)
    session = AblationSession(device=args.device, dtype=args.dtype, batch_size=args.batch_size)
    settings = AblationSettings(args.limit, args.seed, args.num_inference_steps, args.trained)
    if args.dry_run:
        folders = set()
        for question in questions:
            for _, variant, plan, folder in plan_ablation(question, args.output, session, settings):
                if folder not in folders:
                    say(f"{folder}: {variant.label}, {len(plan.layouts)} layouts")
                folders.add(folder)
        say(f"{len(folders)} runs; nothing was written")
        return EXIT_DONE
    for question in questions:
        found = answer(question, args.output, session, settings)
        write_answers([found], args.output)
        say(ablation_markdown(found), flush=True)
    say(f"tables and plots: {args.output}/<question>.md, .csv, .svg; runs: {args.output}/runs/")
    return EXIT_DONE
