"""The Ray executor: images are made and observed by workers of a Ray cluster, the run folder is written here."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from instbench.errors import InputError
from instbench.execution.batches import GIVE_UP_AFTER
from instbench.execution.executor import Answer, Answers, Spent
from instbench.execution.look import Look, Picture, Rows
from instbench.execution.plan import Plan
from instbench.execution.ray_pool import Pool
from instbench.execution.ray_work import Work
from instbench.execution.ray_worker import Job, Trouble, Worker
from instbench.execution.session import Session
from instbench.generators.base import GenerationRequest
from instbench.generators.image_folder import ImageFolderGenerator
from instbench.generators.real_images import RealImagesGenerator
from instbench.runs.memory import largest_memory
from instbench.runs.records import MemoryRecord

__all__ = ["RayExecutor", "RayOptions", "make_executor"]

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_USAGE_STATISTICS = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Which workers there shall be.

    Attributes:
        address: "auto" or the address of a cluster; None starts one on this machine, for this command.
        workers: How many; None takes one per GPU, or a single one where there is none.
        gpus_per_worker: GPUs of each, a share of one (0.5) if several share it; None takes 1 where there are
            GPUs, else 0.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None

    def check(self) -> None:
        """Checks what can be checked without Ray.

        Raises:
            InputError: Names the option.
        """
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers {self.workers}: give 1 or more")
        gpus = self.gpus_per_worker
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise InputError(f"--gpus-per-worker {gpus:g}: give 0, a whole number, or a share below 1")


def make_executor(name: str, session: Session, options: RayOptions = RayOptions()) -> RayExecutor | None:
    """Returns the executor of a name.

    Args:
        name: "local" or "ray".
        session: Device, dtype and batch size of the workers.
        options: Which workers; for "ray" alone.

    Returns:
        The executor, to be used as a context; None for "local".

    Raises:
        InputError: If the name is unknown, an option is wrong, or Ray is not installed.
    """
    if name == "local":
        for option, value in (
            ("--address", options.address),
            ("--workers", options.workers),
            ("--gpus-per-worker", options.gpus_per_worker),
        ):
            if value is not None:
                raise InputError(f"{option} {value}: belongs to --executor ray; add it")
        return None
    if name != "ray":
        raise InputError(f"--executor {name}: unknown; choose local or ray")
    options.check()
    _check_reachable(options.address)
    try:
        os.environ.setdefault(_USAGE_STATISTICS, "0")
        import ray  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--executor ray: Ray is not installed ({error}); pip install 'instbench[ray]'"
        ) from None
    return RayExecutor(session, options)


class RayExecutor:
    """Workers on a Ray cluster, shared by all runs of a command; a context that holds the cluster.

    Args:
        session: Device, dtype and batch size of the workers.
        options: Which workers.
    """

    def __init__(self, session: Session, options: RayOptions) -> None:
        self._session = session
        self._options = options
        self._pool: Pool | None = None
        self._gpus = 0.0
        self._jobs: dict[str, Any] = {}
        self._open = ExitStack()

    # -- the cluster

    def __enter__(self) -> RayExecutor:
        import ray

        with ExitStack() as opened:
            opened.enter_context(redirect_stdout(_RayTalk(sys.stdout)))
            if not ray.is_initialized():
                self._connect()
                opened.callback(ray.shutdown)
            self._pool = self._start_workers()
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import ray

        for member in self.pool.members:
            ray.kill(member.handle, no_restart=True)
        self._pool = None
        self._jobs.clear()
        self._open.close()

    def _connect(self) -> None:
        import ray

        address = self._options.address
        if address is None and "RAY_ADDRESS" not in os.environ:
            # As many as there are processors, or workers were asked to share them.
            count = max(os.cpu_count() or 1, self._options.workers or 1)
            # "local", or Ray would take a cluster that happens to run on this machine.
            more: dict[str, Any] = {"address": "local", "num_cpus": count, "include_dashboard": False}
        else:
            more = {"address": address}
        try:
            ray.init(**more, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
            first = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
            raise InputError(f"--address {address or 'none'}: no Ray cluster there ({first})") from None

    def _start_workers(self) -> Pool:
        import ray

        options = self._options
        total = int(ray.cluster_resources().get("GPU", 0))
        gpus = (1.0 if total else 0.0) if options.gpus_per_worker is None else options.gpus_per_worker
        if self._session.device == "cpu" and options.gpus_per_worker is None:
            gpus = 0.0
        if gpus and not total and options.address is None:
            raise InputError(
                f"--gpus-per-worker {gpus:g}: this machine has no GPU that Ray sees; give 0, or --address of a cluster"
            )
        count = options.workers or (max(1, int(total / gpus)) if gpus else 1)
        self._gpus = gpus
        cpus = 1
        if options.address is None and not gpus:
            cpus = max(1, (os.cpu_count() or 1) // count)
        actor = ray.remote(Worker).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        handles = [
            actor.remote(self._session.device, self._session.batch_size, ray.get, _node) for _ in range(count)
        ]
        size = self._session.batch_size
        return Pool(handles, size if isinstance(size, int) else 1)

    @property
    def pool(self) -> Pool:
        """The workers.

        Raises:
            RuntimeError: Outside of the context.
        """
        if self._pool is None:
            raise RuntimeError("the Ray executor is used outside of its context")
        return self._pool

    # -- the work

    def answers(self, plan: Plan, spent: Spent) -> Answers | None:
        """See `Executor`; images that are only read from this machine's disk are read here."""
        if isinstance(plan.generator, ImageFolderGenerator | RealImagesGenerator):
            return None
        return partial(self._answers, plan, spent)

    def look(self, plan: Plan, spent: Spent) -> Look | None:
        """See `Executor`."""
        return partial(self._look, plan, spent)

    def facts(self) -> dict[str, Any]:
        """The kind, the workers, and the machines that have worked so far, with the largest peaks of a worker there."""
        machines: dict[str, dict[str, Any]] = {}
        peaks: dict[str, list[MemoryRecord]] = {}
        for member in self.pool.members:
            if member.greeting is not None and member.environment is not None:
                host = member.greeting.host
                known = machines.setdefault(host, {"workers": 0, **member.environment})
                known["workers"] += 1
                if member.memory is not None:
                    peaks.setdefault(host, []).append(member.memory)
        for host, records in peaks.items():
            largest = largest_memory(records)
            if largest is not None:
                machines[host]["memory"] = largest.model_dump(
                    mode="json", include={"peak_rss_bytes", "peak_rss_children_bytes", "devices"}
                )
        return {
            "kind": "ray",
            "workers": len(self.pool.members),
            "gpus_per_worker": self._gpus,
            "machines": machines,
        }

    def _job(self, plan: Plan) -> tuple[str, Any]:
        """Key and reference of a plan's job; it is sent to each machine once."""
        import ray

        key = plan.identity.sha256()
        if key not in self._jobs:
            dtype = self._session.dtype
            if dtype == "auto":
                # Another machine may choose otherwise; the run is what was planned here.
                dtype = str(plan.identity.generator.get("dtype", "auto"))
            job = Job(
                key=key,
                model=plan.model,
                checkpoint=None if plan.checkpoint is None else Path(plan.checkpoint).absolute(),
                dtype=dtype,
                benchmark=plan.benchmark,
                layouts=plan.layouts,
                identity=plan.identity,
            )
            self._jobs[key] = [ray.put(job)]  # in a list, Ray leaves it where it is until it is asked for
        return key, self._jobs[key]

    def _answers(
        self, plan: Plan, spent: Spent, requests: Sequence[GenerationRequest], before: int
    ) -> Iterator[Answer]:
        key, reference = self._job(plan)
        work: Work[GenerationRequest] = Work(
            self.pool,
            lambda handle, task: handle.generate.remote(task.number, key, reference, task.items),
            requests,
            lambda member: member.batch_size,
            spent,
        )
        made, failed = before, 0
        for task, member, reply in work.results():
            left = {one.layout.image_key: one for one in task.items}
            troubles: list[tuple[GenerationRequest, Trouble]] = []
            if reply is None:
                lost = Trouble("WorkerDied", f"{task.deaths} workers died while they made it")
                troubles = [(one, lost) for one in left.values()]
                left.clear()
            else:
                for image_key, answer in reply.images:
                    request = left.pop(image_key)
                    if isinstance(answer, Trouble):
                        if not work.again([request], task, member):
                            troubles.append((request, answer))
                    else:
                        made += 1
                        yield request, answer
                _stop(reply.trouble, work, list(left.values()), task, member)
            for request, trouble in troubles:
                failed += 1
                error = trouble.exception()
                if made == 0 and failed >= GIVE_UP_AFTER:
                    raise error  # a fault of the model, not of one layout
                name = request.layout.image_key
                logger.error("image %s failed: %s: %s", name, trouble.kind, trouble.message)
                yield request, error

    def _look(
        self, plan: Plan, spent: Spent, chunks: Iterable[Sequence[Picture]]
    ) -> Generator[Rows, None, None]:
        key, reference = self._job(plan)
        work: Work[Sequence[Picture]] = Work(
            self.pool,
            lambda handle, task: handle.observe.remote(task.number, key, reference, task.items[0]),
            chunks,
            spent=spent,
        )
        for task, member, reply in work.results():
            if reply is None:
                names = ", ".join(one.layout.image_key for one in task.items[0][:3])
                raise RuntimeError(f"{task.deaths} workers died while they looked at {names}, …")
            if reply.trouble is None:
                yield reply.rows
            else:
                _stop(reply.trouble, work, task.items, task, member)


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class _RayTalk(io.TextIOBase):
    """Takes Ray's own lines out of the standard output, where they would spoil ``--json``; ``-v`` logs them."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._dropped = False

    def write(self, text: str) -> int:
        mark = next((one for one in ("(raylet)", "(autoscaler") if one in text), None)
        if mark is not None:
            logger.debug("Ray: %s", text.partition(mark)[2].strip().partition("\n")[0])
        elif not (self._dropped and text == "\n"):  # the end of what was dropped
            self._output.write(text)
        self._dropped = mark is not None
        return len(text)

    def flush(self) -> None:
        self._output.flush()


def _stop(trouble: Trouble | None, work: Work[Any], left: Sequence[Any], task: Any, member: Any) -> None:
    """Raises what went wrong with a task, unless another worker can try what is left of it."""
    if trouble is not None and (trouble.is_input or not work.again(left, task, member)):
        raise trouble.exception()


def _check_reachable(address: str | None) -> None:
    """Ray itself would try for minutes.

    Raises:
        InputError: If nobody listens at a host and port.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--address {address}: nobody listens there ({error}); start Ray with `ray start --head`"
        ) from None
