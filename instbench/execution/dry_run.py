"""What a plan would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instbench import defaults
from instbench.execution.generate import pending_requests
from instbench.execution.local import check_folder
from instbench.execution.plan import Plan, make_requests
from instbench.execution.prediction import predict_disk, predict_unet, seconds_per_image, size_in_words
from instbench.execution.session import Session
from instbench.execution.shards import Shard
from instbench.generators.base import GenerationRequest
from instbench.progress import duration
from instbench.runs.images import StoreKind
from instbench.runs.store import RunFolder

__all__ = ["describe"]


def describe(
    plan: Plan,
    folder: Path,
    *,
    fresh: bool = False,
    shard: Shard | None = None,
    image_store: StoreKind | None = None,
    session: Session | None = None,
) -> dict[str, Any]:
    """Describes a plan: data, settings, how much is left to do and what that takes. Writes nothing.

    UNet calls are counted by the sampler itself and hold if no batch runs out of memory; their rows always do.

    Args:
        plan: The plan.
        folder: The run folder; another run in it is refused, as `run` would.
        fresh: Count everything as left to do.
        shard: Count only this part of the run.
        image_store: How images are to be kept; None leaves it to the folder.
        session: Decides on the size of batches; None takes that of the defaults.

    Returns:
        Facts as plain JSON values, in the order to print.

    Raises:
        InputError: If the folder holds something else.
    """
    check_folder(plan, folder, fresh=fresh, shard=shard, image_store=image_store)
    requests = make_requests(plan.benchmark, plan.layouts, seed=plan.settings.seed, sampling=plan.sampling)
    if shard is not None:
        requests = list(shard.take(requests))
    requests = [one for one in requests if one.layout.image_key not in set(plan.absent)]
    run = RunFolder(folder)
    pending = requests if fresh else pending_requests(run, requests)
    sampling = {name: value for name, value in plan.identity.sampling.items() if value is not None}
    return {
        "benchmark": f"{plan.benchmark.name} v{plan.benchmark.version} {plan.benchmark.edition}",
        "model": plan.model,
        "folder": str(folder),
        "images": len(plan.layouts),
        **({} if shard is None else {"shard": str(shard)}),
        **({"images_missing": len(plan.absent)} if plan.absent else {}),
        "images_to_make": len(pending),
        "instances": sum(len(layout.requested) for layout in plan.layouts),
        "conditions": ", ".join(plan.identity.conditions) or "none",
        "sampling": ", ".join(f"{name} {value}" for name, value in sampling.items()) or "none",
        "metrics": ", ".join(metric.name for metric in plan.benchmark.metrics),
        "identity": plan.identity.sha256(),
        **_needs(run, plan, requests, pending, session),
    }


def _needs(
    run: RunFolder,
    plan: Plan,
    requests: Sequence[GenerationRequest],
    pending: Sequence[GenerationRequest],
    session: Session | None,
) -> dict[str, Any]:
    """UNet calls, disk space and time of what is left to do."""
    facts: dict[str, Any] = {}
    work = predict_unet(plan.generator, pending, session)
    if work is not None:
        facts |= {"unet_calls": work.calls, "unet_rows": work.rows}
    disk = predict_disk(run, len(pending), plan.benchmark.canvas_size, there=len(requests) - len(pending))
    basis = (
        "as the images here" if disk.measured else f"assumed: {defaults.BYTES_PER_PIXEL:g} bytes per pixel"
    )
    facts["disk_needed"] = f"{size_in_words(disk.needed)} ({basis}), {size_in_words(disk.free)} free"
    each = seconds_per_image(run, {one.layout.image_key for one in requests})
    if each is not None and pending:
        facts["time_left"] = f"{duration(each * len(pending))} ({each:.2g} s per image so far)"
    warning = disk.warning()
    return {**facts, **({"warning": warning} if warning else {})}
