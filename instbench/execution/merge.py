"""Joins the shards of a run into the folder that one process would have made, and scores it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instbench.errors import InputError
from instbench.execution.local import RunOutcome, check_image_store, read_asked, read_layouts, rescore
from instbench.execution.session import Session
from instbench.layouts.serialization import write_jsonl
from instbench.runs.atomic import make_folder
from instbench.runs.identity import identity_differences
from instbench.runs.images import ImageStore, StoreKind
from instbench.runs.lock import LOCK_NAME, RunLock, read_owner
from instbench.runs.memory import largest_memory
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder
from instbench.runs.tables import join_tables

__all__ = ["merge_shards"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    folder: RunFolder
    record: RunRecord


def merge_shards(
    shards: Sequence[Path], output: Path, session: Session, image_store: StoreKind | None = None
) -> RunOutcome:
    """Joins shards and scores the whole.

    Everything is checked before anything is written. Observations are taken over; what a shard has not
    observed is observed here. A merge that was interrupted goes on when it is called again.

    Args:
        shards: The folders of the shards.
        output: The run folder to write.
        session: Loads the evaluators.
        image_store: How to keep the images of a new run; None keeps to what is there, or to the first shard.

    Returns:
        The outcome of the whole run.

    Raises:
        InputError: If a shard is in use or of another run, an image is missing, or two shards hold different
            images of one layout; or if the output folder is a shard or holds something else.
        OSError: If the disk is full or the folder cannot be written.
    """
    parts = _read_parts(shards)
    record = parts[0].record
    run = RunFolder(output)
    if output.resolve() in {part.folder.root.resolve() for part in parts}:
        raise InputError(f"{output}: is one of the shards; choose another -o")
    run.check_usable()
    _check_target(run, record, image_store)
    layouts = read_layouts(parts[0].folder, record)
    keys = [layout.image_key for layout in layouts]
    size = read_asked(parts[0].folder, record)[1].canvas_size
    sources = _sources(parts, keys, size)
    make_folder(output)
    with RunLock(output):
        _check_target(run, record, image_store)
        if not run.run_json.exists():
            run.keep_images_in(image_store or record.image_store)
        run.prepare()
        if not run.run_json.exists():
            run.write_run(_whole(parts, image_store or record.image_store))
        write_jsonl(layouts, run.layouts_jsonl)
        _copy_images(run, sources, size)
        _join_logs(run, parts, keys)
        _join_observations(run, parts, keys)
    logger.info("%s: %d images of %d shards joined", output, len(sources), len(parts))
    return rescore(output, session)


def _read_parts(shards: Sequence[Path]) -> list[_Part]:
    if not shards:
        raise InputError("no shard named; give the folders that `run --shard` filled")
    parts: list[_Part] = []
    for path in shards:
        folder = RunFolder(path)
        record = folder.read_run()
        owner = read_owner(path / LOCK_NAME)
        if owner is not None and not owner.is_stale():
            raise InputError(f"{path}: in use by process {owner.pid} on {owner.host}; wait for it")
        parts.append(_Part(folder, record))
        first = parts[0]
        differences = identity_differences(first.record.identity, record.identity)
        if differences:
            fields = "; ".join(str(one) for one in differences[:5])
            raise InputError(f"{path}: another run than {first.folder.root}: {fields}; leave it out")
    return parts


def _check_target(run: RunFolder, record: RunRecord, image_store: StoreKind | None) -> None:
    there = run.check_identity(record.identity)
    if there is not None and there.shard is not None:
        raise InputError(f"{run.root}: holds shard {there.shard}; choose another -o")
    if there is not None:
        check_image_store(run, there, image_store)


def _sources(parts: Sequence[_Part], keys: Sequence[str], size: int) -> Mapping[str, ImageStore]:
    """Where each image is; every image is looked at, and copies must be equal."""
    allowed = set((parts[0].record.images_elsewhere or {}).get("missing", ()))
    sources: dict[str, ImageStore] = {}
    missing = []
    for key in keys:
        stores = [part.folder.pictures for part in parts if part.folder.has_image(key, size)]
        hashes = [store.sha256(key) for store in stores] if len(stores) > 1 else []
        for store, digest in zip(stores, hashes, strict=False):
            if digest != hashes[0]:
                raise _disagree(stores[0], store, key)
        if stores:
            sources[key] = stores[0]
        elif key not in allowed:
            missing.append(key)
    if missing:
        named = sorted({part.record.shard or "the whole run" for part in parts})
        raise InputError(
            f"{len(missing)} of {len(keys)} images are in no shard, {missing[0]} first (given: "
            f"{', '.join(named)}); finish or name the shards that are left"
        )
    return sources


def _disagree(first: ImageStore, second: ImageStore, key: str) -> InputError:
    places = f"{first.place(key)} and {second.place(key)}"
    return InputError(f"{places}: different images of one layout; delete the wrong one")


def _whole(parts: Sequence[_Part], image_store: StoreKind) -> RunRecord:
    """The record of the whole run: times are sums over the shards."""
    timings: dict[str, float] = {}
    networks: dict[str, float] = {}
    for part in parts:
        for total, own in (
            (timings, part.record.timings),
            (networks, part.record.seconds_in_networks),
        ):
            for stage, seconds in own.items():
                total[stage] = round(total.get(stage, 0.0) + seconds, 6)
    started = min((part.record.started_at for part in parts if part.record.started_at), default=None)
    changed = {
        "shard": None,
        "image_store": image_store,
        "status": "started",
        "error": None,
        "timings": timings,
        "seconds_in_networks": networks,
        "started_at": started,
        "counts": {},
        "memory": largest_memory(part.record.memory for part in parts if part.record.memory is not None),
    }
    return parts[0].record.model_copy(update=changed)


def _copy_images(run: RunFolder, sources: Mapping[str, ImageStore], size: int) -> None:
    for key, source in sources.items():
        if not run.has_image(key, size):
            run.pictures.write(key, source.read(key))
        elif run.pictures.sha256(key) != source.sha256(key):
            raise _disagree(run.pictures, source, key)


def _join_logs(run: RunFolder, parts: Sequence[_Part], keys: Sequence[str]) -> None:
    logs = [part.folder.read_image_log() for part in parts]
    done = run.read_image_log()
    for key in keys:
        entries = [log[key] for log in logs if key in log]
        if entries and key not in done:
            run.log_image(entries[-1])


def _join_observations(run: RunFolder, parts: Sequence[_Part], keys: Sequence[str]) -> None:
    found: dict[str, list[Path]] = {}
    for part in parts:
        if part.folder.observations.is_dir():
            for path in sorted(part.folder.observations.glob("*.parquet")):
                if not path.is_symlink():
                    found.setdefault(path.name, []).append(path)
    for name, paths in sorted(found.items()):
        if not join_tables(paths, run.observations / name, keys):
            logger.warning("%s: the shards were observed differently; observed again", name)
