"""Workers of a Ray cluster. Ray places them, and starts them again where one died."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from instbench._version import __version__
from instbench.errors import InputError
from instbench.execution.ray_worker import Greeting
from instbench.runs.records import MemoryRecord

__all__ = ["Member", "Pool", "first_line"]

logger = logging.getLogger(__name__)

_NOTICE_SECONDS = 60.0
_LOOK_SECONDS = 1.0  # between looks at the machines


@dataclass(eq=False)
class Member:
    """One worker.

    Attributes:
        handle: Its actor.
        greeting: What it said when it was ready; None until then.
        environment: Facts about its machine; None until it has worked.
        memory: The largest peaks that it reported, also before it was started again.
        ready: Whether it can be given work; not while Ray starts it again.
        batch_size: Images per call that fit there.
    """

    handle: Any
    greeting: Greeting | None = None
    environment: dict[str, Any] | None = None
    memory: MemoryRecord | None = None
    ready: bool = False
    batch_size: int = 1

    @property
    def name(self) -> str:
        """Where it is."""
        return "a worker" if self.greeting is None else f"the worker on {self.greeting.host}"

    @property
    def incarnation(self) -> str:
        """Its process, as far as is known."""
        return "" if self.greeting is None else self.greeting.incarnation


class Pool:
    """The workers of a command.

    Args:
        handles: Their actors.
        batch_size: Images per call to begin with.
    """

    def __init__(self, handles: Sequence[Any], batch_size: int) -> None:
        self.members = [Member(handle, batch_size=batch_size) for handle in handles]
        self._greetings: dict[Any, Member] = {}
        self._noticed, self._looked = time.monotonic(), 0.0
        self._lost: frozenset[str] = frozenset()
        for member in self.members:
            self._greet(member)

    def _greet(self, member: Member) -> None:
        """Asks a worker to say when it is ready, however often Ray has to start it."""
        member.ready = False
        self._greetings[member.handle.hello.options(max_task_retries=-1).remote()] = member

    def wait(self, due: Iterable[Any], seconds: float | None = None) -> list[Any]:
        """Waits until a result is there; workers that got ready meanwhile are taken in.

        Args:
            due: Results that are awaited.
            seconds: How long at most; None is up to the pool.

        Returns:
            The results of `due` that are there; none if only a worker got ready, or nothing came.

        Raises:
            InputError: If no worker is left.
        """
        import ray

        waiting = [*due, *self._greetings]
        found, _ = ray.wait(waiting, num_returns=1, timeout=seconds or _NOTICE_SECONDS)
        if found:
            self._noticed = time.monotonic()
        elif time.monotonic() - self._noticed >= _NOTICE_SECONDS:
            self._noticed = time.monotonic()
            self._say_what_is_missing()
        for reference in found:
            if reference in self._greetings:
                self._take_in(self._greetings.pop(reference), reference)
        return [one for one in found if one in due]

    def has_lost(self, member: Member, incarnation: str) -> bool:
        """Whether a process of a worker is known to be no more."""
        if member not in self.members or member.incarnation != incarnation:
            return True
        return member.greeting is not None and member.greeting.node in self._lost_nodes()

    def _lost_nodes(self) -> frozenset[str]:
        import ray

        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._lost = frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"])
        return self._lost

    def _take_in(self, member: Member, reference: Any) -> None:
        import ray

        try:
            greeting: Greeting = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._drop(member, f"a worker could not start: {first_line(error)}")
            return
        back = member.greeting is not None
        member.greeting, member.ready = greeting, True
        if greeting.version != __version__:
            self.refuse(member, f"instbench {greeting.version} there, {__version__} here")
            return
        ready = sum(one.ready for one in self.members)
        logger.log(
            logging.INFO if back else logging.DEBUG,
            "%s is %s (%d of %d)",
            member.name,
            "back" if back else "ready",
            ready,
            len(self.members),
        )

    def refuse(self, member: Member, reason: str) -> None:
        """Leaves a worker out from here on.

        Raises:
            InputError: If no worker is left.
        """
        import ray

        if member in self.members:
            ray.kill(member.handle, no_restart=True)
            self._drop(member, f"{member.name} is refused: {reason}")

    def _drop(self, member: Member, reason: str) -> None:
        self.members.remove(member)
        member.ready = False
        if not self.members:
            raise InputError(reason)
        logger.warning("%s; going on with %d workers", reason, len(self.members))

    def unheard(self, member: Member, error: Exception) -> None:
        """Takes note that a worker did not answer; it gets nothing to do until it says hello, in whatever process."""
        if member.ready and member in self.members:
            logger.warning("%s does not answer (%s)", member.name, type(error).__name__)
            logger.debug("%s", first_line(error))
            self._greet(member)

    def _say_what_is_missing(self) -> None:
        import ray

        missing = sum(not one.ready for one in self.members)
        if missing:
            free = ray.available_resources()
            logger.info(
                "waiting for %d of %d workers; free in the cluster: %g CPU, %g GPU",
                missing,
                len(self.members),
                free.get("CPU", 0),
                free.get("GPU", 0),
            )


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
