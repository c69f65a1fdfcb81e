"""Where tables are printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["make_console"]

_FILE_WIDTH = 140


def make_console() -> Console:
    """Makes a console on standard output; files and pipes get a width that no table is cut to."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _FILE_WIDTH, highlight=False)
