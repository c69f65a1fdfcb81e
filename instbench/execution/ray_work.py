"""Tasks for the workers of a Ray cluster: held back until one has room, and seen to where one does not answer.

A worker that Ray may start again is "unavailable" to Ray both when its process died and when only the connection
broke (`ActorUnavailableError`; `ActorDiedError` means that it will not come back). So the worker is asked for another
greeting. From a new process it is a death, and what the worker had in hand goes to others. From the same process it is
none: the tasks are sent there again, where those that are finished already are only answered.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from instbench.execution.executor import Spent
from instbench.execution.ray_pool import Member, Pool, first_line
from instbench.execution.ray_worker import IN_HAND, Reply
from instbench.runs.memory import largest_memory

__all__ = ["Task", "Work"]

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

_TRIES = 2
_DEATHS_TOGETHER = 2
_DEATHS_ALONE = 3
_SILENCES = 10
_LOOK_SECONDS = 1.0  # between looks at what became of a worker that does not answer
_PATIENCE_SECONDS = 600.0
_PATIENCE_TASKS = 2.0  # or so many times what the longest task took, if that is more


@dataclass(eq=False)
class Task(Generic[ItemT]):
    """A piece of work.

    Attributes:
        items: What it is about.
        deaths: Workers that died while they had it in work.
        tries: How often it was answered with an error.
        failed_on: Workers that answered it with an error.
        silences: How often a living worker's answer to it was lost.
        number: By which a worker knows it again.
    """

    items: list[ItemT]
    deaths: int = 0
    tries: int = 0
    failed_on: set[Member] = field(default_factory=set)
    silences: int = 0
    number: int = field(default_factory=itertools.count().__next__)


class _Sent(NamedTuple):
    """A task that a worker has: the worker, its process then, and since when."""

    task: Task[Any]
    member: Member
    incarnation: str
    since: float


class Work(Generic[ItemT]):
    """Tasks of one kind, handed out to the workers of a pool.

    Args:
        pool: The workers.
        send: Gives a task to a worker and returns where the `Reply` will be.
        items: What there is to do; read only as far as workers have room.
        size: Items of a task for a worker.
        spent: Told of the seconds in which networks worked, the mean over the workers that took part.
    """

    def __init__(
        self,
        pool: Pool,
        send: Callable[[Any, Task[ItemT]], Any],
        items: Iterable[ItemT],
        size: Callable[[Member], int] = lambda member: 1,
        spent: Spent = lambda seconds: None,
    ) -> None:
        self._pool = pool
        self._send = send
        self._items = iter(items)
        self._size = size
        self._spent = spent
        self._seconds: dict[Member, float] = {}
        self._again: deque[Task[ItemT]] = deque()
        self._due: dict[Any, _Sent] = {}  # in the order in which they were sent
        self._unheard: list[_Sent] = []
        self._in_work: dict[str, Task[ItemT] | None] = {}  # by process, what it may die of
        self._died: set[str] = set()
        self._longest = 0.0
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
            RuntimeError: If a worker cannot work, or its answers to a task are lost time after time.
        """
        self._hand_out()
        while self._due or self._again or self._unheard or not self._all_taken:
            found = self._pool.wait(self._due, _LOOK_SECONDS if self._unheard else None)
            finished: list[tuple[_Sent, Reply | None]] = []
            for reference in found:
                reply = self._open(reference, self._due[reference])
                sent = self._due.pop(reference)
                if reply is not None:
                    finished.append((sent, reply))
            finished += [(sent, None) for sent in self._settle()]
            # Work first: a worker must not wait while an image is written.
            self._hand_out()
            for sent, answer in finished:
                yield sent.task, sent.member, answer
            self._hand_out()

    def _hand_out(self) -> None:
        """Fills the hands of the workers, the emptiest first."""
        in_hand = Counter(sent.member for sent in self._due.values())
        for load in range(IN_HAND):
            for member in self._pool.members:
                if member.ready and in_hand[member] <= load:
                    task = self._next(member)
                    if task is not None:
                        self._give(member, task)
                        in_hand[member] += 1

    def _give(self, member: Member, task: Task[ItemT]) -> None:
        reference = self._send(member.handle, task)
        self._due[reference] = _Sent(task, member, member.incarnation, time.monotonic())

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

    def _open(self, reference: Any, sent: _Sent) -> Reply | None:
        """The reply to a task; None if there is none, and the task will be seen to."""
        import ray

        member = sent.member
        try:
            reply: Reply = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"{member.name}: {first_line(error.cause or error)}") from error
        except ray.exceptions.RayError as error:
            self._not_heard(sent, error)
            return None
        for note in reply.notes:
            logger.warning("%s: %s", member.name, note)
        if reply.refused is not None:
            self._again.append(sent.task)
            self._pool.refuse(member, reply.refused)
            return None
        self._longest = max(self._longest, time.monotonic() - sent.since)
        self._add(member, reply.seconds_in_networks)
        member.environment = reply.environment or member.environment
        member.memory = largest_memory(one for one in (member.memory, reply.memory) if one is not None)
        if reply.batch_size is not None:
            member.batch_size = reply.batch_size
        return reply

    def _add(self, member: Member, seconds: float) -> None:
        before = self._mean()
        self._seconds[member] = self._seconds.get(member, 0.0) + seconds
        self._spent(self._mean() - before)

    def _mean(self) -> float:
        return sum(self._seconds.values()) / max(1, len(self._seconds))

    # -- workers that do not answer

    def _not_heard(self, sent: _Sent, error: Exception) -> None:
        """Keeps a task until it is known what became of its worker."""
        import ray

        # What it had in work may be to blame; what was behind that had not begun.
        oldest = next(one.task for one in self._due.values() if one.incarnation == sent.incarnation)
        self._in_work.setdefault(sent.incarnation, oldest)
        if isinstance(error, ray.exceptions.ActorDiedError) and error.preempted:
            self._in_work[sent.incarnation] = None  # its machine was taken away
        if sent.incarnation == sent.member.incarnation:
            self._pool.unheard(sent.member, error)
        self._unheard.append(sent._replace(since=time.monotonic()))

    def _settle(self) -> list[_Sent]:
        """Sees to the tasks of workers that did not answer, once it is known whether they died.

        Returns:
            Tasks that too many workers died of.
        """
        given_up, still_unheard = [], []
        for sent in self._unheard:
            member, task = sent.member, sent.task
            if self._pool.has_lost(member, sent.incarnation):
                self._blame(member, sent.incarnation)
                if self._put_back(task):
                    given_up.append(sent)
            elif member.ready:
                self._in_work.pop(sent.incarnation, None)
                task.silences += 1
                if task.silences >= _SILENCES:
                    raise RuntimeError(
                        f"{member.name} is alive, but {task.silences} of its answers to the same task were lost; "
                        "look at the network between here and there"
                    )
                logger.info("%s answers again; it had not died", member.name)
                self._give(member, task)
            elif time.monotonic() - sent.since > max(_PATIENCE_SECONDS, _PATIENCE_TASKS * self._longest):
                self._in_work.pop(sent.incarnation, None)
                logger.warning("%s is silent; its work goes to others", member.name)
                self._again.append(task)
            else:
                still_unheard.append(sent)
        self._unheard = still_unheard
        return given_up

    def _blame(self, member: Member, incarnation: str) -> None:
        """Counts a death for the task that was in work, once."""
        task = self._in_work.get(incarnation)
        if incarnation not in self._died and member in self._pool.members:
            logger.warning("%s died; its work goes to others", member.name)
            if task is not None:
                task.deaths += 1
        self._died.add(incarnation)

    def _put_back(self, task: Task[ItemT]) -> bool:
        """Has the task of a dead worker done again; True if it has killed too many."""
        if len(task.items) > 1 and task.deaths >= _DEATHS_TOGETHER:
            self._again.extend(Task([item], 1, task.tries, task.failed_on) for item in task.items)
        elif task.deaths >= _DEATHS_ALONE:
            return True
        else:
            self._again.append(task)
        return False
