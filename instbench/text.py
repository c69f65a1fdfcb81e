"""Texts from data and files, as they may be shown on a terminal."""

from __future__ import annotations

import re

__all__ = ["visible"]

# Controls but tab and newline, marks that turn the direction of writing, and bytes of file names that are no text.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Returns the text with everything that could steer a terminal written out, such as ``\x1b`` for an escape."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
