"""The stages of a plan, one after the other; the networks work in this process or where an executor has them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from instbench.benchmarks.schema import Benchmark
from instbench.errors import InputError
from instbench.execution.batches import BatchSize
from instbench.execution.catalog import replace_evaluators
from instbench.execution.executor import Executor
from instbench.execution.generate import generate_images
from instbench.execution.layouts import layouts_sha256
from instbench.execution.look import Look
from instbench.execution.observe import Observations, observe_images
from instbench.execution.plan import Plan, make_requests
from instbench.execution.score import score_run
from instbench.execution.session import Evaluators, Session
from instbench.execution.shards import Shard
from instbench.execution.timing import Stages, sum_up
from instbench.layouts.types import Layout
from instbench.runs.atomic import make_folder
from instbench.runs.environment import machine, package_versions
from instbench.runs.identity import IdentityV1
from instbench.runs.images import StoreKind
from instbench.runs.lock import RunLock
from instbench.runs.memory import measure_memory, reset_peaks
from instbench.runs.records import MemoryRecord, ResultsRecord, RunRecord
from instbench.runs.store import RunFolder

__all__ = [
    "RunOutcome",
    "check_folder",
    "check_image_store",
    "execute",
    "read_asked",
    "read_layouts",
    "rescore",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run came to.

    Attributes:
        folder: The run folder.
        results: The numbers, or None if only images were made.
        made: Images made by this call.
        kept: Images that were there already.
        failed: Images that could not be made.
        missing: Images that a folder of ready images lacks and may lack; their objects are misses.
        address: Where the run is, if that is no local folder; `folder` mirrors it.
    """

    folder: Path
    results: ResultsRecord | None
    made: int
    kept: int
    failed: tuple[str, ...]
    missing: tuple[str, ...] = ()
    address: str | None = None


def check_folder(
    plan: Plan,
    folder: Path,
    *,
    fresh: bool = False,
    shard: Shard | None = None,
    image_store: StoreKind | None = None,
) -> None:
    """Checks that a plan may run in a folder, without writing anything.

    Args:
        plan: The plan.
        folder: The run folder.
        fresh: Whether a run that is in it will be deleted.
        shard: The part of the run that the folder is for, None for the whole.
        image_store: How images are to be kept; None leaves it to the folder.

    Raises:
        InputError: If the folder holds something else, or another run and `fresh` is not set.
    """
    run = RunFolder(folder)
    run.check_usable()
    if not fresh:
        _check_same(run, plan, shard, image_store)


def _check_same(
    run: RunFolder, plan: Plan, shard: Shard | None, image_store: StoreKind | None
) -> RunRecord | None:
    """The record in the folder, None for a new run; another run or another part of it is refused."""
    record = run.check_identity(plan.identity.model_dump(mode="json"))
    asked = None if shard is None else str(shard)
    if record is not None and record.shard != asked:
        there, now = (f"shard {one}" if one else "the whole run" for one in (record.shard, asked))
        raise InputError(f"{run.root}: holds {there}, asked now is {now}; choose another -o or add --fresh")
    if record is not None:
        check_image_store(run, record, image_store)
    return record


def check_image_store(run: RunFolder, record: RunRecord, asked: StoreKind | None) -> None:
    """Refuses to keep the images of a run in another way than it began with."""
    if asked is not None and asked != record.image_store:
        raise InputError(
            f"{run.root}: keeps its images in {record.image_store}; leave --image-store {asked} out, choose "
            "another -o or add --fresh"
        )


def execute(
    plan: Plan,
    folder: Path,
    session: Session,
    *,
    fresh: bool = False,
    score: bool = True,
    shard: Shard | None = None,
    executor: Executor | None = None,
    image_store: StoreKind | None = None,
) -> RunOutcome:
    """Runs a plan in a folder; a second call with the same plan continues.

    Args:
        plan: The plan.
        folder: The run folder; made if it is not there.
        session: Loaded networks.
        fresh: Start again: delete the files of the run that is in the folder.
        score: Also observe and score; False stops after the images.
        shard: Make and observe only this part of the images, and do not score; `merge_shards` does.
        executor: Where the networks work; None for this process.
        image_store: How to keep the images of a new run: "files" or "archives"; None keeps to what is there,
            or files.

    Returns:
        The outcome.

    Raises:
        InputError: If the folder holds something else, or is in use.
        OSError: If the disk is full or the folder cannot be written.
    """
    run = RunFolder(folder)
    run.check_usable()
    make_folder(folder)
    with RunLock(folder):
        if fresh:
            run.clear()
        record = _check_same(run, plan, shard, image_store) or _new_record(plan, shard, image_store)
        run.keep_images_in(record.image_store)
        run.prepare()
        before, record.status, record.error = record.status, "started", None
        _note_executor(record, executor)
        reset_peaks()
        stages = Stages(record)
        evaluators = stages.watch(plan.evaluators)
        _save(run, record)
        with _recorded(run, record):
            with stages.run("plan"):
                _write_layouts(run, plan.layouts)
            asked = make_requests(
                plan.benchmark, plan.layouts, seed=plan.settings.seed, sampling=plan.sampling
            )
            absent = set(plan.absent)
            if shard is not None:
                asked = list(shard.take(asked))
                absent &= {one.layout.image_key for one in asked}
            requests = [one for one in asked if one.layout.image_key not in absent]
            with stages.run("generate"):
                answers = None if executor is None else executor.answers(plan, stages.spent)
                size = session.batch_size_for(plan.benchmark.canvas_size)
                made = generate_images(
                    run, plan.generator, requests, size, answers=answers, network=stages.network
                )
            if made.made and answers is None:
                _note_batches(record, plan, size)
            record.counts = {
                "images": len(asked),
                "images_failed": len(made.failed),
                "images_missing": len(absent),
            }
            results = None
            look = None if executor is None else executor.look(plan, stages.spent)
            if score and shard is not None:
                own = {one.layout.image_key for one in asked}
                _observe(run, stages, plan.benchmark, plan.layouts, evaluators, only=own, look=look)
            elif score:
                results = _observe_and_score(
                    run, stages, plan.benchmark, plan.layouts, evaluators, session, look=look
                )
        _note_executor(record, executor)
        record.totals = sum_up(run, record, {one.layout.image_key for one in asked})
        failed = tuple(made.failed)
        if failed:
            record.status, record.error = "error", f"{len(failed)} images could not be made"
        elif score or (before == "success" and not made.made):
            record.status = "success"
        _save(run, record)
    return RunOutcome(
        folder, results, made.made, made.kept, failed, tuple(key for key in plan.absent if key in absent)
    )


def rescore(folder: Path, session: Session, replaced: Mapping[str, str] | None = None) -> RunOutcome:
    """Observes and scores the images of a run again, with the evaluators that are installed now.

    Observations that still fit are read back. Where evaluators changed, the run's identity changes
    with them.

    Args:
        folder: A run folder.
        session: Loaded networks.
        replaced: Other evaluators by role, in place of those that the run was scored with.

    Returns:
        The outcome.

    Raises:
        InputError: If there is no run, or one shard of it, its layouts were altered, or it is in use.
    """
    run = RunFolder(folder)
    record = run.read_run()
    if record.shard is not None:
        raise InputError(
            f"{folder}: is shard {record.shard} of a run; put it together with `instbench merge`"
        )
    with RunLock(folder):
        run.prepare()
        layouts = read_layouts(run, record)
        benchmark, identity = read_asked(run, record)
        benchmark = replace_evaluators(benchmark, replaced or {})
        evaluators = session.evaluators(benchmark, layouts)
        changed = {"evaluators": evaluators.identity(), "protocol_sha256": benchmark.protocol_sha256()}
        identity = identity.model_copy(update=changed)
        record.benchmark = benchmark.model_dump(mode="json")
        record.identity = identity.model_dump(mode="json")
        record.identity_sha256 = identity.sha256()
        with _recorded(run, record):
            stages = Stages(record)
            results = _observe_and_score(run, stages, benchmark, layouts, stages.watch(evaluators), session)
        keys = [layout.image_key for layout in layouts]
        gone = [key for key in keys if not run.has_image(key, benchmark.canvas_size)]
        allowed = set((record.images_elsewhere or {}).get("missing", ()))
        absent = tuple(key for key in gone if key in allowed)
        missing = tuple(key for key in gone if key not in allowed)
        record.counts = {
            "images": len(keys),
            "images_failed": len(missing),
            "images_missing": len(absent),
        }
        record.totals = sum_up(run, record, set(keys))
        record.status, record.error = "success", None
        if missing:
            record.status, record.error = "error", f"{len(missing)} images are missing"
        _save(run, record)
    return RunOutcome(folder, results, 0, len(keys) - len(gone), missing, absent)


def _observe(
    run: RunFolder,
    stages: Stages,
    benchmark: Benchmark,
    layouts: tuple[Layout, ...],
    evaluators: Evaluators,
    only: Collection[str] | None = None,
    look: Look | None = None,
) -> Observations:
    with stages.run("observe"):
        return observe_images(run, benchmark, layouts, evaluators, only=only, look=look)


def _observe_and_score(
    run: RunFolder,
    stages: Stages,
    benchmark: Benchmark,
    layouts: tuple[Layout, ...],
    evaluators: Evaluators,
    session: Session,
    look: Look | None = None,
) -> ResultsRecord:
    observations = _observe(run, stages, benchmark, layouts, evaluators, look=look)
    with stages.run("score"):
        return score_run(run, stages.record, benchmark, layouts, observations, evaluators, session)


def _new_record(plan: Plan, shard: Shard | None, image_store: StoreKind | None) -> RunRecord:
    return RunRecord(
        identity=plan.identity.model_dump(mode="json"),
        identity_sha256=plan.identity.sha256(),
        model=plan.model,
        checkpoint=None if plan.checkpoint is None else str(plan.checkpoint),
        benchmark=plan.benchmark.model_dump(mode="json"),
        images_elsewhere=plan.images_elsewhere,
        shard=None if shard is None else str(shard),
        image_store=image_store or "files",
        settings_asked=plan.settings.to_json(),
        settings_resolved=dict(plan.identity.sampling),
        started_at=_now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _note_executor(record: RunRecord, executor: Executor | None) -> None:
    record.environment["executor"] = {"kind": "local"} if executor is None else executor.facts()


def _note_batches(record: RunRecord, plan: Plan, size: BatchSize) -> None:
    record.memory = record.memory or MemoryRecord()
    record.memory.images_per_call = size.images
    bound = getattr(plan.generator, "unet_rows_per_call", None)
    record.memory.unet_rows_per_call = None if bound is None else bound(plan.benchmark.canvas_size)


def _save(run: RunFolder, record: RunRecord) -> None:
    executor = record.environment.get("executor", {"kind": "local"})
    record.memory = measure_memory(record.memory)
    record.versions, record.environment = package_versions(), {**machine(), "executor": executor}
    record.updated_at = _now()
    run.write_run(record)


@contextmanager
def _recorded(run: RunFolder, record: RunRecord) -> Iterator[None]:
    """Leaves the reason of a failure in ``run.json``; an interruption stays "started"."""
    try:
        yield
    except KeyboardInterrupt:
        _try_save(run, record)
        raise
    except Exception as error:
        record.status, record.error = "error", f"{type(error).__name__}: {error}"
        _try_save(run, record)
        raise


def _try_save(run: RunFolder, record: RunRecord) -> None:
    try:
        _save(run, record)
    except OSError as error:  # the first error is the one to report
        logger.debug("run.json could not be updated: %s", error)


def _write_layouts(run: RunFolder, layouts: tuple[Layout, ...]) -> None:
    from instbench.layouts.serialization import write_jsonl

    write_jsonl(layouts, run.layouts_jsonl)


def read_asked(run: RunFolder, record: RunRecord) -> tuple[Benchmark, IdentityV1]:
    """The benchmark and the identity of a run.

    Raises:
        InputError: If ``run.json`` was altered so that they no longer fit; names the field.
    """
    try:
        return Benchmark.model_validate(record.benchmark), IdentityV1.model_validate(record.identity)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{run.run_json}: field {field}: {first['msg']}; make the run again") from None


def read_layouts(run: RunFolder, record: RunRecord) -> tuple[Layout, ...]:
    """Reads the layouts of a run.

    Raises:
        InputError: If they are not those of the run's identity.
    """
    from instbench.layouts.serialization import read_jsonl

    layouts = tuple(read_jsonl(run.layouts_jsonl))
    if layouts_sha256(layouts) != record.identity.get("layouts_sha256"):
        raise InputError(f"{run.layouts_jsonl}: altered since the run; make the run again with --fresh")
    return layouts
