"""Ranks that show ties: models that cannot be told apart share a letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

__all__ = ["rank_groups"]


def rank_groups(
    values: Sequence[float | None], differ: Callable[[int, int], bool], *, higher_is_better: bool = True
) -> list[str]:
    """Letters of groups within which no two models differ significantly.

    Groups are as large as can be: two models share a letter exactly where they do not differ, also if one between them
    differs from one of the two (Piepho 2004, insert and absorb). Groups are named from the best member, "a" first.

    Args:
        values: One number per model; None has no group.
        differ: Whether two models (by index) differ significantly.
        higher_is_better: Direction.

    Returns:
        Letters per model, such as "ab"; "" for None.
    """
    known = [index for index, value in enumerate(values) if value is not None]
    order = sorted(known, key=lambda index: values[index] or 0.0, reverse=higher_is_better)
    groups = [frozenset(range(len(order)))] if order else []
    for one, other in combinations(range(len(order)), 2):
        if differ(order[one], order[other]):
            parted = {
                part for group in groups for part in (group - {one}, group - {other}) if {one, other} <= group
            }
            parted |= {group for group in groups if not {one, other} <= group}
            groups = [one for one in parted if not any(one < larger for larger in parted)]
    letters = [""] * len(values)
    for number, group in enumerate(sorted(groups, key=sorted)):
        name = chr(ord("a") + number % 26) * (number // 26 + 1)
        for place in group:
            letters[order[place]] += name
    return letters
