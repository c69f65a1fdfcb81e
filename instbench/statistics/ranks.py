"""Ranks that show ties: models that cannot be told apart share a letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["rank_groups"]


def rank_groups(
    values: Sequence[float | None], differ: Callable[[int, int], bool], *, higher_is_better: bool = True
) -> list[str]:
    """Letters of groups within which no two models differ significantly.

    Models are ordered from the best; a group is a longest run of neighbours without a significant pair, "a" the best.

    Args:
        values: One number per model; None has no group.
        differ: Whether two models (by index) differ significantly.
        higher_is_better: Direction.

    Returns:
        Letters per model, such as "ab"; "" for None.
    """
    known = [index for index, value in enumerate(values) if value is not None]
    order = sorted(known, key=lambda index: values[index] or 0.0, reverse=higher_is_better)
    runs: list[tuple[int, int]] = []
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and not any(
            differ(order[one], order[end + 1]) for one in range(start, end + 1)
        ):
            end += 1
        if not runs or end > runs[-1][1]:
            runs.append((start, end))
    letters = [""] * len(values)
    for number, (start, end) in enumerate(runs):
        name = chr(ord("a") + number % 26) * (number // 26 + 1)
        for place in range(start, end + 1):
            letters[order[place]] += name
    return letters
