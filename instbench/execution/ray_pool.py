"""Workers of a Ray cluster, and the tasks that they have in hand.

Ray places the workers, starts them again where one died, and moves the data. What is left to do here is to hold back
tasks until a worker has room, and to give what a dead worker had in hand to another.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from instbench._version import __version__
from instbench.errors import InputError
from instbench.execution.ray_worker import Greeting, Reply
from instbench.runs.memory import largest_memory
from instbench.runs.records import MemoryRecord

__all__ = ["Member", "Pool", "Task", "Work"]

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

_IN_HAND = 2  # one in work, one waiting beside it, so that a worker never waits for its caller
_TRIES = 2
_DEATHS_TOGETHER = 2
_DEATHS_ALONE = 3
_NOTICE_SECONDS = 60.0


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
        in_hand: Results that are due, oldest first.
        blamed: The result that it had in work when it last died.
    """

    handle: Any
    greeting: Greeting | None = None
    environment: dict[str, Any] | None = None
    memory: MemoryRecord | None = None
    ready: bool = False
    batch_size: int = 1
    in_hand: list[Any] = field(default_factory=list)
    blamed: Any = None

    @property
    def name(self) -> str:
        """Where it is."""
        return "a worker" if self.greeting is None else f"the worker on {self.greeting.host}"


@dataclass(eq=False)
class Task(Generic[ItemT]):
    """A piece of work.

    Attributes:
        items: What it is about.
        deaths: Workers that died while they had it in work.
        tries: How often it was answered with an error.
        failed_on: Workers that answered it with an error.
    """

    items: list[ItemT]
    deaths: int = 0
    tries: int = 0
    failed_on: set[Member] = field(default_factory=set)


class Pool:
    """The workers of a command.

    Args:
        handles: Their actors.
        batch_size: Images per call to begin with.
    """

    def __init__(self, handles: Sequence[Any], batch_size: int) -> None:
        self.members = [Member(handle, batch_size=batch_size) for handle in handles]
        self._greetings: dict[Any, Member] = {}
        self._last_refusal = ""
        for member in self.members:
            self._greet(member)

    def _greet(self, member: Member) -> None:
        """Asks a worker to say when it is ready, however often Ray has to start it."""
        member.ready = False
        self._greetings[member.handle.hello.options(max_task_retries=-1).remote()] = member

    def wait(self, due: Iterable[Any]) -> list[Any]:
        """Waits until a result is there; workers that got ready meanwhile are taken in.

        Returns:
            The results of `due` that are there; none if only a worker got ready.

        Raises:
            InputError: If no worker is left.
        """
        import ray

        waiting = [*due, *self._greetings]
        found, _ = ray.wait(waiting, num_returns=1, timeout=_NOTICE_SECONDS)
        if not found:
            self._say_what_is_missing()
        for reference in found:
            if reference in self._greetings:
                self._take_in(self._greetings.pop(reference), reference)
        return [one for one in found if one in due]

    def _take_in(self, member: Member, reference: Any) -> None:
        import ray

        try:
            greeting: Greeting = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._drop(member, f"a worker could not start: {_first_line(error)}")
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

    def lost(self, member: Member, error: Exception) -> None:
        """Takes note that a worker died; Ray starts it again, on another machine if need be."""
        if member.ready and member in self.members:
            logger.warning("%s was lost (%s); its work goes to others", member.name, type(error).__name__)
            logger.debug("%s", _first_line(error))
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


class Work(Generic[ItemT]):
    """Tasks of one kind, handed out to the workers of a pool.

    Args:
        pool: The workers.
        send: Gives a task's items to a worker and returns where the `Reply` will be.
        items: What there is to do; read only as far as workers have room.
        size: Items of a task for a worker.
    """

    def __init__(
        self,
        pool: Pool,
        send: Callable[[Any, list[ItemT]], Any],
        items: Iterable[ItemT],
        size: Callable[[Member], int] = lambda member: 1,
    ) -> None:
        self._pool = pool
        self._send = send
        self._items = iter(items)
        self._size = size
        self._again: deque[Task[ItemT]] = deque()
        self._due: dict[Any, tuple[Member, Task[ItemT]]] = {}
        self._all_taken = False

    def again(self, items: Sequence[ItemT], task: Task[ItemT], member: Member) -> bool:
        """Has items of a task that failed tried once more, on another worker where there is one.

        Returns:
            False if they have been tried twice.
        """
        if task.tries + 1 >= _TRIES:
            return False
        self._again.append(Task(list(items), task.deaths, task.tries + 1, task.failed_on | {member}))
        return True

    def results(self) -> Iterator[tuple[Task[ItemT], Member, Reply | None]]:
        """Yields each task with its worker's reply; None where worker after worker died of it.

        Raises:
            InputError: If no worker is left.
        """
        self._hand_out()
        while self._due or self._again or not self._all_taken:
            for reference in self._pool.wait(self._due):
                member, task = self._due.pop(reference)
                oldest = member.in_hand[0]
                member.in_hand.remove(reference)
                finished, reply = self._open(reference, member, task, oldest)
                # Work first: a worker must not wait while an image is written.
                self._hand_out()
                if finished:
                    yield task, member, reply
            self._hand_out()

    def _hand_out(self) -> None:
        """Fills the hands of the workers, the emptiest first."""
        for load in range(_IN_HAND):
            for member in self._pool.members:
                if member.ready and len(member.in_hand) <= load:
                    task = self._next(member)
                    if task is not None:
                        reference = self._send(member.handle, task.items)
                        member.in_hand.append(reference)
                        self._due[reference] = member, task

    def _next(self, member: Member) -> Task[ItemT] | None:
        for task in self._again:
            others = any(one.ready and one not in task.failed_on for one in self._pool.members)
            if member not in task.failed_on or not others:
                self._again.remove(task)
                return task
        size = self._size(member)
        items = [item for _, item in zip(range(size), self._items, strict=False)]
        self._all_taken = not items
        return Task(items) if items else None

    def _open(
        self, reference: Any, member: Member, task: Task[ItemT], oldest: Any
    ) -> tuple[bool, Reply | None]:
        """Whether a task is finished, with the reply; what was lost is put back."""
        import ray

        try:
            reply: Reply = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"{member.name}: {_first_line(error.cause or error)}") from error
        except ray.exceptions.RayError as error:
            if member.ready:  # the first that is heard of this death
                member.blamed = oldest
            to_blame = reference == member.blamed and member in self._pool.members
            self._pool.lost(member, error)
            return self._bury(task, to_blame), None
        for note in reply.notes:
            logger.warning("%s: %s", member.name, note)
        if reply.refused is not None:
            self._again.append(task)
            self._pool.refuse(member, reply.refused)
            return False, None
        member.environment = reply.environment or member.environment
        member.memory = largest_memory(one for one in (member.memory, reply.memory) if one is not None)
        if reply.batch_size is not None:
            member.batch_size = reply.batch_size
        return True, reply

    def _bury(self, task: Task[ItemT], to_blame: bool) -> bool:
        """Puts the task of a dead worker back; True if it has killed too many."""
        task.deaths += to_blame  # those behind it had not begun
        several = len(task.items) > 1
        if several and task.deaths >= _DEATHS_TOGETHER:
            self._again.extend(Task([item], 1, task.tries, task.failed_on) for item in task.items)
        elif task.deaths >= _DEATHS_ALONE:
            return True
        else:
            self._again.append(task)
        return False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
