"""What a plan would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instbench.execution.generate import pending_requests
from instbench.execution.local import check_folder
from instbench.execution.plan import Plan, make_requests
from instbench.execution.shards import Shard
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
) -> dict[str, Any]:
    """Describes a plan: data, settings and how much is left to do. Writes nothing.

    Args:
        plan: The plan.
        folder: The run folder; another run in it is refused, as `run` would.
        fresh: Count everything as left to do.
        shard: Count only this part of the run.
        image_store: How images are to be kept; None leaves it to the folder.

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
    to_make = len(requests if fresh else pending_requests(RunFolder(folder), requests))
    sampling = {name: value for name, value in plan.identity.sampling.items() if value is not None}
    return {
        "benchmark": f"{plan.benchmark.name} v{plan.benchmark.version} {plan.benchmark.edition}",
        "model": plan.model,
        "folder": str(folder),
        "images": len(plan.layouts),
        **({} if shard is None else {"shard": str(shard)}),
        **({"images_missing": len(plan.absent)} if plan.absent else {}),
        "images_to_make": to_make,
        "instances": sum(len(layout.requested) for layout in plan.layouts),
        "conditions": ", ".join(plan.identity.conditions) or "none",
        "sampling": ", ".join(f"{name} {value}" for name, value in sampling.items()) or "none",
        "metrics": ", ".join(metric.name for metric in plan.benchmark.metrics),
        "identity": plan.identity.sha256(),
    }
