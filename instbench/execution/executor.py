"""Where the networks of a run work: in this process, or wherever an executor has its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from instbench.execution.look import Look
from instbench.execution.plan import Plan
from instbench.generators.base import GeneratedImage, GenerationRequest

__all__ = ["Answer", "Answers", "Executor", "Spent"]

Answer = tuple[GenerationRequest, GeneratedImage | Exception]
"""A request with its image, or with what made it fail."""

Answers = Callable[[Sequence[GenerationRequest], int], Iterator[Answer]]
"""Answers requests in any order; the number says how many images of the run were there before."""

Spent = Callable[[float], None]
"""Takes seconds in which networks worked elsewhere: of several workers side by side the mean of each one's seconds, so
that they can be held against the clock; less than 0 where a worker that did little lowers the mean."""


class Executor(Protocol):
    """Makes and observes images elsewhere. The run folder is written by the caller alone."""

    def answers(self, plan: Plan, spent: Spent) -> Answers | None:
        """Returns what makes the images of a plan; None leaves that to this process.

        Args:
            plan: The plan.
            spent: Told of the seconds in which generators worked, as they come to be known.
        """
        ...

    def look(self, plan: Plan, spent: Spent) -> Look | None:
        """Returns what observes the images of a plan; None leaves that to this process.

        Args:
            plan: The plan.
            spent: Told of the seconds in which evaluators worked, as they come to be known.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what to note in ``run.json``: the kind of executor and its workers."""
        ...
