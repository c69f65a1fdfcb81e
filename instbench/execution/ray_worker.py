"""What runs on a worker of a Ray cluster: networks loaded once, answers as plain data.

Nothing here needs Ray's classes, so that the worker can be tried in one process.
"""

from __future__ import annotations

import json
import logging
import platform
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instbench._version import __version__
from instbench.benchmarks.schema import Benchmark
from instbench.errors import InputError
from instbench.execution.batches import Batches
from instbench.execution.look import Looker, Picture, Rows
from instbench.execution.session import Session
from instbench.execution.timing import Stopwatch
from instbench.generators.base import GeneratedImage, GenerationRequest
from instbench.layouts.types import Layout
from instbench.runs.atomic import canonical_json
from instbench.runs.environment import machine, package_versions
from instbench.runs.identity import IdentityV1, identity_differences
from instbench.runs.memory import measure_memory
from instbench.runs.records import MemoryRecord

__all__ = ["IN_HAND", "Greeting", "Job", "Reply", "Trouble", "Worker"]

IN_HAND = 2
"""Tasks that a worker has: one in work, one waiting beside it, so that it never waits for its caller."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must know of a plan.

    Attributes:
        key: Name of the job; a worker asks for the rest of it once.
        model: Name of the generator.
        checkpoint: Its checkpoint, absolute.
        dtype: Floating type of the generator, as the plan has it.
        benchmark: The benchmark.
        layouts: All layouts, in full.
        identity: Identity of the run; the worker's networks must be those.
    """

    key: str
    model: str
    checkpoint: Path | None
    dtype: str
    benchmark: Benchmark
    layouts: tuple[Layout, ...]
    identity: IdentityV1


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a worker says first.

    Attributes:
        host: Name of its machine.
        version: Version of instbench there.
        node: Ray's name of its machine.
        incarnation: A name that no other process has.
    """

    host: str
    version: str
    node: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """An exception as plain data: its class may not exist where it is read.

    Attributes:
        kind: Name of the class.
        message: Its words.
        is_input: Whether it is an `InputError`.
        is_system: Whether it is an `OSError`: a fault of the machine, not of a layout.
    """

    kind: str
    message: str
    is_input: bool = False
    is_system: bool = False

    @classmethod
    def of(cls, error: Exception) -> Trouble:
        """Describes an exception."""
        kinds = isinstance(error, InputError), isinstance(error, OSError)
        return cls(type(error).__name__, str(error), *kinds)

    def exception(self) -> Exception:
        """Returns an exception of that name."""
        if self.is_input:
            return InputError(self.message)
        base = OSError if self.is_system else RuntimeError
        made: Exception = type(self.kind, (base,), {})(self.message)
        return made


@dataclass(slots=True)
class Reply:
    """What came of a task.

    Attributes:
        images: Images, or what made them fail, by image key.
        rows: What the evaluators saw.
        trouble: Why the rest of the task was not done.
        refused: Why this worker must not take part, or None.
        batch_size: Images per call that fit there.
        notes: Warnings, for the log of whoever asked.
        environment: Facts about the machine and versions of packages, when networks were loaded for this reply.
        memory: The worker's peaks so far.
        seconds_in_networks: Seconds of this task in which the generator or an evaluator worked.
    """

    images: list[tuple[str, GeneratedImage | Trouble]] = field(default_factory=list)
    rows: Rows = field(default_factory=dict)
    trouble: Trouble | None = None
    refused: str | None = None
    batch_size: int | None = None
    notes: list[str] = field(default_factory=list)
    environment: dict[str, Any] | None = None
    memory: MemoryRecord | None = None
    seconds_in_networks: float = 0.0


class _Notes(logging.Handler):
    """Keeps the warnings of a task."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.taken: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:  # errors are part of the reply
            self.taken.append(record.getMessage())


class Worker:
    """One process with its own networks.

    Args:
        device: Torch device, or "auto".
        batch_size: Images per call of the generator, or "auto".
        fetch: Gets a job by its reference.
        node: Says Ray's name of the machine.
    """

    def __init__(
        self, device: str, batch_size: int | str, fetch: Callable[[Any], Job], node: Callable[[], str]
    ) -> None:
        self._device = device
        self._batch_size = batch_size
        self._fetch = fetch
        self._jobs: dict[str, Job] = {}
        self._sessions: dict[str, Session] = {}
        self._batches: dict[str, Batches] = {}
        self._lookers: dict[str, Looker] = {}
        self._greeting = Greeting(platform.node(), __version__, node(), uuid.uuid4().hex)
        self._kept: dict[int, Reply] = {}
        self._watch = Stopwatch()

    def hello(self) -> Greeting:
        """Says where the worker is and what it runs."""
        return self._greeting

    def generate(
        self, number: int, key: str, reference: Sequence[Any], requests: Sequence[GenerationRequest]
    ) -> Reply:
        """Makes images.

        Args:
            number: Number of the task. If its answer was lost on the way it is asked for again; it is not done again.
            key: Key of the job.
            reference: Where the job is, alone in a list, should the worker not have it.
            requests: What to make.
        """

        def work(reply: Reply) -> None:
            batches = self._generator(key, reference)
            for request, answer in batches.run(requests):
                made = Trouble.of(answer) if isinstance(answer, Exception) else answer
                reply.images.append((request.layout.image_key, made))

        reply = self._do(number, work)
        if key in self._batches:
            reply.batch_size = self._batches[key].size.images
        return reply

    def observe(self, number: int, key: str, reference: Sequence[Any], pictures: Sequence[Picture]) -> Reply:
        """Looks at images; arguments as in `generate`."""

        def work(reply: Reply) -> None:
            reply.rows = self._looker(key, reference).look(pictures)

        return self._do(number, work)

    def _do(self, number: int, work: Callable[[Reply], None]) -> Reply:
        if number in self._kept:
            return self._kept[number]
        reply = Reply()
        notes = _Notes()
        loggers = [logging.getLogger(name) for name in ("instbench", "reference_model")]
        known, before = len(self._batches) + len(self._lookers), self._watch.seconds
        for logger in loggers:
            logger.addHandler(notes)
        try:
            work(reply)
        except _RefusedError as error:
            reply.refused = str(error)
        except Exception as error:
            reply.trouble = Trouble.of(error)
        finally:
            for logger in loggers:
                logger.removeHandler(notes)
        reply.notes, reply.memory = notes.taken, measure_memory()
        reply.seconds_in_networks = self._watch.seconds - before
        if len(self._batches) + len(self._lookers) > known:
            reply.environment = {**machine(), "versions": package_versions()}
        self._kept[number] = reply
        while len(self._kept) > IN_HAND:
            self._kept.pop(next(iter(self._kept)))
        return reply

    def _job(self, key: str, reference: Sequence[Any]) -> Job:
        if key not in self._jobs:
            self._jobs[key] = self._fetch(reference[0])
        return self._jobs[key]

    def _session(self, dtype: str) -> Session:
        if dtype not in self._sessions:
            self._sessions[dtype] = Session(self._device, dtype, self._batch_size)
        return self._sessions[dtype]

    def _generator(self, key: str, reference: Sequence[Any]) -> Batches:
        if key not in self._batches:
            job = self._job(key, reference)
            session = self._session(job.dtype)
            with _refusing():
                generator = session.generator(job.model, job.checkpoint)
                _check("generator", job.identity.generator, generator.identity())
            size = session.batch_size_for(job.benchmark.canvas_size)
            # Whether the model or a layout is at fault is decided where all workers' failures are known.
            self._batches[key] = Batches(generator, size, succeeded=1, network=self._watch.network)
        return self._batches[key]

    def _looker(self, key: str, reference: Sequence[Any]) -> Looker:
        if key not in self._lookers:
            job = self._job(key, reference)
            with _refusing():
                evaluators = self._session("auto").evaluators(job.benchmark, job.layouts)
                _check("evaluators", job.identity.evaluators, evaluators.identity())
            self._lookers[key] = Looker(job.benchmark, job.layouts, self._watch.watch(evaluators))
        return self._lookers[key]


class _RefusedError(Exception):
    """The networks of this worker are not those of the run."""


@contextmanager
def _refusing() -> Iterator[None]:
    """What cannot be loaded here is a fault of this machine: whoever asked has loaded it."""
    try:
        yield
    except (InputError, OSError) as error:
        raise _RefusedError(str(error)) from error


def _check(role: str, asked: Any, there: Any) -> None:
    ours, theirs = (json.loads(canonical_json({role: value})) for value in (asked, there))
    differences = identity_differences(theirs, ours)
    if differences:
        listed = "; ".join(str(one) for one in differences[:3])
        raise _RefusedError(f"other networks than the run's: {listed}")
