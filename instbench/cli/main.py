"""Entry point of the `instbench` command.

Exit codes: 0 done, 1 finished with failures, 2 bad input, 130 interrupted, 143 terminated (run it again to continue).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from instbench._version import __version__
from instbench.cli.output import say
from instbench.cli.signals import Terminated, orderly
from instbench.errors import EXIT_BAD_INPUT, EXIT_FAILURES, EXIT_INTERRUPTED, InputError
from instbench.text import visible

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
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_FIXES = {
    **dict.fromkeys(_NO_RIGHT, "check the permissions, or choose another place"),
    errno.EISDIR: "a folder is where a file belongs; move it away",
    errno.ENOTDIR: "a file is where a folder belongs; move it away",
    errno.ENOTEMPTY: "a folder is where a file belongs; move it away",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "a link leads back to itself; remove it",
    errno.ENOENT: "check the path",
    errno.EINVAL: "give a plain file",
    errno.EFBIG: "give a smaller one",
    errno.EIO: "the disk or the network failed; run the same command again to continue",
    errno.ESTALE: "the network disk failed; run the same command again to continue",
    errno.EMFILE: "raise the limit of open files (ulimit -n) and run the same command again",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of the command line; sub-parsers inherit it."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(visible(message).split())
        self.exit(EXIT_BAD_INPUT, f"error: {line}; see `{self.prog} --help`\n")


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
    _occupy_streams()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stand-in, or closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with orderly():
            return _main(argv)
    except KeyboardInterrupt as stop:
        # Whoever is impatient may press Ctrl-C again while the process goes down, without seeing a traceback.
        if threading.current_thread() is threading.main_thread() and argv is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        what, code = "interrupted", EXIT_INTERRUPTED
        if isinstance(stop, Terminated):
            what, code = "terminated", 128 + stop.number
        _say(f"{what}; run the same command again to continue")
        return code


def _occupy_streams() -> None:
    """Gives a process whose streams were closed (``>&-``) some: the next file would become one of them."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere


def _main(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        given = sys.argv[1:] if argv is None else list(argv)
        # An empty path would be this folder, which nobody means by an unset variable.
        if any(one == "" or (one.startswith("--") and one.endswith("=")) for one in given):
            parser.error("an argument is empty (an unset variable of the shell?)")
        args = parser.parse_args(given)
    except SystemExit as stop:
        return int(stop.code or 0)
    _set_up_logging(verbose=args.verbose, quiet=args.quiet)
    try:
        return int(importlib.import_module(f"instbench.cli.{args.verb}").run(args))
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
            _say(f"error: {_of_the_system(error)}")
        return _failed(args.verbose, EXIT_BAD_INPUT)
    except UnicodeEncodeError as error:
        text = error.object[max(error.start - 40, 0) : error.end + 10]
        _say(f"error: {text!r} is no UTF-8 text and cannot be written down; rename it, or set LC_ALL=C.UTF-8")
        return _failed(args.verbose, EXIT_BAD_INPUT)
    except MemoryError:
        _say("error: out of memory; give fewer or smaller inputs, or a smaller --batch-size")
        return _failed(args.verbose, EXIT_FAILURES)
    except Exception as error:
        _say(f"error: {type(error).__name__}: {error} (add -v before the verb for the traceback)")
        return _failed(args.verbose, EXIT_FAILURES)


def _has_folder() -> bool:
    with contextlib.suppress(OSError):
        return bool(os.getcwd())  # noqa: PTH109
    return False


def _of_the_system(error: OSError) -> str:
    """What the system refused: the file, the reason and what may help."""
    if error.filename is None or not error.strerror:
        gone = error.errno == errno.ENOENT and not _has_folder()
        return "the current folder was deleted; change to another" if gone else str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    other = f" -> {error.filename2}" if error.filename2 is not None else ""
    fix = _FIXES.get(error.errno or 0)
    return f"{name}{other}: {error.strerror}" + (f"; {fix}" if fix else "")


def _say(message: str) -> None:
    say(" ".join(message.split("\n")), error=True)


def _failed(verbose: bool, code: int) -> int:
    if verbose:
        logging.getLogger("instbench").exception("traceback")
    return code


class _Visible(logging.Formatter):
    """Messages name captions, categories and files, which must not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _set_up_logging(*, verbose: bool, quiet: bool) -> None:
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(message)s"))
    for name in ("instbench", "metrics", "reference_model"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    # Libraries have much to say that is nothing to a user here.
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.raiseExceptions = False  # a line that cannot be written (the reader has gone) is no traceback


if __name__ == "__main__":
    sys.exit(main())
