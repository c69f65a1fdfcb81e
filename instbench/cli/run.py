"""`instbench run`: generate and score."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from instbench.cli.options import (
    add_run_options,
    add_slices_option,
    executor_arguments,
    folder_arguments,
    run_arguments,
)
from instbench.cli.output import make_console, say
from instbench.errors import EXIT_DONE, EXIT_FAILURES

__all__ = ["dry_run", "print_plans", "register", "report", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("run", help="score a model on benchmarks: generate, observe, score")
    add_run_options(parser)
    add_slices_option(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from instbench import api

    if args.dry_run:
        return dry_run(args)
    outcomes = api.run(**run_arguments(args), **executor_arguments(args), **folder_arguments(args))
    return report(outcomes, as_json=args.json, slices=args.slices)


def report(outcomes: list[Any], *, as_json: bool, slices: bool = False) -> int:
    """Prints outcomes and returns the exit code: 1 if an image could not be made."""
    from instbench.reports.summary import failures_table, results_table, slices_table

    if as_json:
        rows = [
            {
                "folder": one.address or str(one.folder),
                "images_made": one.made,
                "images_kept": one.kept,
                "images_failed": list(one.failed),
                "images_missing": list(one.missing),
                "results": None if one.results is None else one.results.model_dump(mode="json"),
            }
            for one in outcomes
        ]
        print(json.dumps(rows, indent=2))
    else:
        scored = [one.results for one in outcomes if one.results is not None]
        if scored:
            tables = [results_table(scored), failures_table(scored)]
            for table in [*tables, slices_table(scored) if slices else None]:
                if table is not None:
                    make_console().print(table)
        for one in outcomes:
            failed = f", {len(one.failed)} failed" if one.failed else ""
            missing = f", {len(one.missing)} missing (misses)" if one.missing else ""
            say(f"{one.address or one.folder}: {one.made} images made, {one.kept} kept{failed}{missing}")
    failures = sum(len(one.failed) for one in outcomes)
    if failures:
        say(f"finished with failures: {failures} images are missing", error=True)
    return EXIT_FAILURES if failures else EXIT_DONE


def dry_run(args: argparse.Namespace) -> int:
    """Plans and prints, writes nothing."""
    from instbench import api
    from instbench.runs.mirror import opened

    arguments, where = run_arguments(args), folder_arguments(args)
    with opened(args.output, write=False) as place:
        plans = api.plan_runs(**arguments | {"output": place.folder})
        return print_plans(plans, as_json=args.json, place=place, session=arguments["session"], **where)


def print_plans(plans: list[tuple[Any, Path]], *, as_json: bool, place: Any, **where: Any) -> int:
    """Prints what plans would do in a place; `where` is for `describe`."""
    from instbench.execution.dry_run import describe

    facts = [describe(plan, folder, **where) | {"folder": place.named(folder)} for plan, folder in plans]
    if as_json:
        print(json.dumps(facts, indent=2))
        return EXIT_DONE
    for one in facts:
        for name, value in one.items():
            say(f"{name:>16}: {value}")
        say()
    return EXIT_DONE
