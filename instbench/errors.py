"""Errors that users see: one line each, naming the thing that is wrong and the fix."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["EXIT_BAD_INPUT", "EXIT_DONE", "EXIT_FAILURES", "EXIT_INTERRUPTED", "InputError"]

EXIT_DONE = 0
EXIT_FAILURES = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """Bad input from the user; the command line prints it as one line and exits with code 2.

    Args:
        message: One line that names the file (or option), the field or id, and the fix.
        details: Lines of a report that is printed before it, where many things are wrong at once.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)
