"""`instbench leaderboard`: check, file and publish results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from instbench.cli.options import local_path
from instbench.cli.output import say
from instbench.errors import EXIT_DONE, InputError

__all__ = ["register", "run"]

_FORMATS = ("site", "csv", "markdown", "latex")


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("leaderboard", help="check and file results, build tables and a site")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say what is wrong with results; exit code 2 if anything is")
    add = actions.add_parser("add", help="file results in a board")
    for action in (check, add):
        action.add_argument(
            "results", nargs="+", type=local_path, metavar="FILE_OR_RUN", help="results.json, or a run folder"
        )
    add.add_argument(
        "-o", "--output", type=local_path, required=True, metavar="BOARD", help="the board's folder"
    )
    add.add_argument(
        "--reproduced", action="store_true", help='badge "reproduced here" instead of "self-reported"'
    )
    build = actions.add_parser("build", help="make a static site, or tables, of a board")
    build.add_argument(
        "board", nargs="+", type=local_path, metavar="BOARD", help="board; run folders will do too"
    )
    build.add_argument(
        "-o", "--output", type=local_path, required=True, metavar="DIR", help="folder to write"
    )
    build.add_argument("--format", choices=_FORMATS, default="site", help="default: site")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    try:
        return int({"check": _check, "add": _add, "build": _build}[args.action](args))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error


def _refuse_problems(paths: list[Path]) -> None:
    from leaderboards.submissions import check_results

    problems = [line for path in paths for line in check_results(path)]
    if problems:
        found = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        checked = "1 submission" if len(paths) == 1 else f"{len(paths)} submissions"
        raise InputError(f"{found} in {checked}; see above", problems)


def _check(args: argparse.Namespace) -> int:
    from leaderboards.submissions import may_lack_numbers

    _refuse_problems(args.results)
    for path in args.results:
        unknown = "; unknown whether numbers of the benchmark are missing: scored by an older version"
        say(f"{path}: ok{unknown if may_lack_numbers(path) else ''}")
    return EXIT_DONE


def _add(args: argparse.Namespace) -> int:
    from leaderboards.submissions import BADGES, add_submission

    _refuse_problems(args.results)  # all or nothing
    for path in args.results:
        folder = add_submission(path, args.output, badge=BADGES[1] if args.reproduced else BADGES[0])
        say(f"{path}: filed in {folder}")
    return EXIT_DONE


def _build(args: argparse.Namespace) -> int:
    if args.format == "site":
        from leaderboards.site import build_site

        say(f"open {build_site(args.board, args.output)}")
    else:
        from leaderboards.tables import write_tables

        for path in write_tables(args.board, args.output, args.format):
            say(path)
    return EXIT_DONE
