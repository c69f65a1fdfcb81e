"""Where words and tables are printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from instbench.text import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console", "say"]

_FILE_WIDTH = 140


def say(text: object = "", *, error: bool = False, flush: bool = False) -> None:
    """Prints a text in which captions, names and paths cannot steer the terminal.

    Args:
        text: What to print; line breaks stay.
        error: Print it on standard error.
        flush: Print it now.
    """
    print(visible(str(text)), file=sys.stderr if error else sys.stdout, flush=flush)


def make_console() -> Console:
    """Makes a console on standard output; files and pipes get a width that no table is cut to."""
    from instbench.cli.console import PlainConsole

    return PlainConsole(width=None if sys.stdout.isatty() else _FILE_WIDTH)
