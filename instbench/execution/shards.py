"""Shards: one run split over jobs that know nothing of each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from instbench.errors import InputError

__all__ = ["Shard"]

ItemT = TypeVar("ItemT")
_FORM = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`: every layout whose position in the run is `index` modulo `count`.

    Attributes:
        index: From 0 to `count` - 1.
        count: How many parts the run has.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads ``i/n``.

        Raises:
            InputError: If the text is anything else, or i is not below n.
        """
        match = _FORM.fullmatch(text)
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or shard.index >= shard.count:
            raise InputError(f"--shard {text}: give i/n with i from 0 to n-1, such as 0/4")
        return shard

    def take(self, items: Sequence[ItemT]) -> tuple[ItemT, ...]:
        """Returns this shard's items, in order."""
        return tuple(items[self.index :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
