"""Entry point of the `instbench` command.

Exit codes: 0 done, 1 finished with failures, 2 bad input, 130 interrupted (run it again to continue).
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from instbench._version import __version__
from instbench.errors import EXIT_BAD_INPUT, EXIT_FAILURES, EXIT_INTERRUPTED, InputError

__all__ = ["VERBS", "build_parser", "main"]

VERBS = (
    "run",
    "generate",
    "score",
    "merge",
    "draw",
    "compare",
    "ls",
    "validate",
    "convert",
    "data",
    "doctor",
    "demo",
    "ablate",
    "report",
    "leaderboard",
)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of the command line; sub-parsers inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"error: {message}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser; every verb's module adds its own part. Imports nothing heavy."""
    parser = _Parser(
        prog="instbench", description="Benchmark suite for instance-conditioned image generation."
    )
    parser.add_argument("--version", action="version", version=f"instbench {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more; show tracebacks")
    parser.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        importlib.import_module(f"instbench.cli.{verb}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; None reads the process's own.

    Returns:
        The exit code.
    """
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    _set_up_logging(verbose=args.verbose, quiet=args.quiet)
    try:
        return int(importlib.import_module(f"instbench.cli.{args.verb}").run(args))
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to continue")
        return EXIT_INTERRUPTED
    except InputError as error:
        for line in error.details:
            _say(line)
        _say(f"error: {error}")
        return _failed(args.verbose, EXIT_BAD_INPUT)
    except BrokenPipeError:
        # The reader of our output has gone (`instbench ls | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _NO_SPACE:
            where = f" at {error.filename}" if error.filename else ""
            _say(f"error: no space left{where}; free some and run the same command again to continue")
        else:
            _say(f"error: {error}")
        return _failed(args.verbose, EXIT_BAD_INPUT)
    except Exception as error:
        _say(f"error: {type(error).__name__}: {error} (add -v before the verb for the traceback)")
        return _failed(args.verbose, EXIT_FAILURES)


def _say(message: str) -> None:
    print(" ".join(message.split("\n")), file=sys.stderr)


def _failed(verbose: bool, code: int) -> int:
    if verbose:
        logging.getLogger("instbench").exception("traceback")
    return code


def _set_up_logging(*, verbose: bool, quiet: bool) -> None:
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("instbench", "metrics", "reference_model"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Libraries have much to say that is nothing to a user here.
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
