"""Where the networks of a run work: in this process, or wherever an executor has its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from instbench.execution.look import Look
from instbench.execution.plan import Plan
from instbench.generators.base import GeneratedImage, GenerationRequest

__all__ = ["Answer", "Answers", "Executor"]

Answer = tuple[GenerationRequest, GeneratedImage | Exception]
"""A request with its image, or with what made it fail."""

Answers = Callable[[Sequence[GenerationRequest], int], Iterator[Answer]]
"""Answers requests in any order; the number says how many images of the run were there before."""


class Executor(Protocol):
    """Makes and observes images elsewhere. The run folder is written by the caller alone."""

    def answers(self, plan: Plan) -> Answers | None:
        """Returns what makes the images of a plan; None leaves that to this process."""
        ...

    def look(self, plan: Plan) -> Look | None:
        """Returns what observes the images of a plan; None leaves that to this process."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what to note in ``run.json``: the kind of executor and its workers."""
        ...
