"""Signal 9, full disks and too little memory at chosen moments of runs, merges and scorings; locks of others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from instbench.runs.lock import LOCK_NAME, LockOwner
from instbench.runs.store import RunFolder
from tests.faults.children import Fault, little_memory, slow_disk, small_files, start
from tests.faults.driver import wait_until
from tests.instbench.fakes import CANVAS, write_benchmark, write_coco

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell the files of a child"),
]
IMAGES = 6
STORES = ("files", "archives")


class Desk:
    """A benchmark, its undisturbed run, and what to call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_coco(folder / "toy", IMAGES)
        metrics = [{"name": one} for one in ("box_ap50", "mask_iou")]
        self.benchmark = write_benchmark(folder / "toy", metrics=metrics)
        self.whole = folder / "whole" / "run"
        assert start(folder / "whole", *self.run(self.whole)).end() == (0, "")
        self.expected = (self.whole / "results.json").read_bytes()
        self.shards = [folder / f"shard-{index}" / "run" for index in range(2)]
        for index, shard in enumerate(self.shards):
            ended = start(shard.parent, *self.run(shard, "--shard", f"{index}/2")).end()
            assert ended == (0, "")

    def run(self, where: Path, *extra: object) -> tuple[object, ...]:
        return ("run", self.benchmark, "--model", "fake", "--batch-size", 3, "-o", where, *extra)

    def merge(self, where: Path) -> tuple[object, ...]:
        return ("merge", *self.shards, "-o", where)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


def finished(run: Path) -> set[str]:
    if not (run / "run.json").exists():
        return set()
    folder = RunFolder(run)
    keys = list(folder.pictures.keys())
    return {key for key in keys if folder.has_image(key, CANVAS)}


def resumed(
    desk: Desk, top: Path, command: Sequence[object], count: Callable[[str], None], kind: str
) -> None:
    """Calls a command again: it must end well, with the same numbers, and make nothing twice."""
    count(kind)
    run = top / "run"
    before = finished(run)
    child = start(top, *command)
    code, said = child.end()
    lost = [] if code == 0 else [f"exit code {code}: {said}"]
    lost += [f"image {key} made twice" for key in before & set(child.log)]
    if code == 0 and (run / "results.json").read_bytes() != desk.expected:
        lost.append("results.json")
    if code == 0 and len(RunFolder(run).read_image_log()) != IMAGES:
        lost.append("lines of images.jsonl")
    lost += map(str, run.rglob(".tmp-*"))
    for _ in lost:
        count("lost")
    assert lost == []


KILLS = [
    *(Fault("kill", at, 1, name) for at in ("rename", "renamed") for name in ("results.json", "samples.npz")),
    *(Fault("kill", at, number, "run.json") for at in ("rename", "renamed") for number in (1, 2)),
    *(Fault("kill", "write", number) for number in (300, 4_000, 12_000)),
    *(Fault("kill", "sync", number) for number in (3, 20)),
]
WORDS = {"ids": lambda fault: "-".join(str(one) for one in asdict(fault).values())}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("fault", KILLS, **WORDS)
def test_a_run_killed_while_it_writes(desk, fault, store, tmp_path, count):
    command = desk.run(tmp_path / "run", "--image-store", store)
    assert start(tmp_path, *command, fault=fault).end()[0] == -9
    resumed(desk, tmp_path, command, count, "kill -9 while writing")


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("kill", "rename", number) for number in (1, 2, 6)),
        *(Fault("kill", "rename", 1, name) for name in ("detections.parquet", "results.json")),
        *(Fault("kill", "write", number) for number in (2_000,)),
        Fault("kill", "renamed", 1, "run.json"),
    ],
    **WORDS,
)
def test_a_merge_killed_anywhere(desk, fault, tmp_path, count):
    command = desk.merge(tmp_path / "run")
    assert start(tmp_path, *command, fault=fault).end()[0] == -9
    resumed(desk, tmp_path, command, count, "kill -9 in a merge")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("kill", at, 1, name)
        for at in ("rename", "renamed")
        for name in ("parquet", "results.json", "run.json")
    ],
    **WORDS,
)
def test_scoring_killed_anywhere(desk, fault, tmp_path, count):
    shutil.copytree(desk.whole, tmp_path / "run")
    command = ("score", tmp_path / "run")
    assert start(tmp_path, *command, fault=fault).end()[0] == -9
    resumed(desk, tmp_path, command, count, "kill -9 while scoring")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "fault",
    [
        *(
            Fault(how, "write", number)
            for how, number in (("ENOSPC", 300), ("ENOSPC", 9_000), ("EDQUOT", 5_000))
        ),
        *(Fault(how, "sync", number) for how, number in (("ENOSPC", 18), ("EDQUOT", 5), ("EIO", 9))),
    ],
    **WORDS,
)
def test_a_disk_that_fills_up_anywhere(desk, fault, store, tmp_path, count):
    command = desk.run(tmp_path / "run", "--image-store", store)
    code, said = start(tmp_path, *command, fault=fault).end()
    assert (code, said.count("\n")) == (2, 1), said
    assert fault.how == "EIO" or "no space left" in said
    resumed(desk, tmp_path, command, count, "full disk or quota")


@pytest.mark.parametrize("store", STORES)
def test_files_that_may_not_grow(desk, store, tmp_path, count):
    command = desk.run(tmp_path / "run", "--image-store", store)
    code, said = start(tmp_path, *command, before=small_files).end()
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith("error: ")
    resumed(desk, tmp_path, command, count, "full disk or quota")


@pytest.mark.parametrize("store", STORES)
def test_ctrl_c_while_images_wait_for_a_slow_disk(desk, store, tmp_path, count):
    command = desk.run(tmp_path / "run", "--image-store", store)
    child = start(tmp_path, *command, before=slow_disk, pause=0.01, hold=4)
    wait_until(lambda: len(child.log) >= 4)
    os.kill(child.process.pid, signal.SIGINT)
    assert child.end() == (130, "interrupted; run the same command again to continue\n")
    waited = set(child.log[:3]) - finished(tmp_path / "run")  # the fourth may not have been handed over
    for _ in waited:
        count("lost")
    assert waited == set()
    assert not (tmp_path / "run" / LOCK_NAME).exists()
    resumed(desk, tmp_path, command, count, "Ctrl-C")


@pytest.mark.parametrize("number", [2, 5])
def test_the_killer_of_a_full_memory_in_the_middle_of_a_batch(desk, number, tmp_path, count):
    command = desk.run(tmp_path / "run")
    assert start(tmp_path, *command, fault=Fault("kill", "draw", number)).end()[0] == -9
    resumed(desk, tmp_path, command, count, "out of memory")


def test_too_little_memory_for_the_batch(desk, tmp_path, count):
    command = desk.run(tmp_path / "run")
    child = start(tmp_path, *command, before=little_memory)
    code, said = child.end()
    assert code == 0, said
    made = [line for line in child.log if line != "detect"]
    assert len(made) == len(set(made)) == IMAGES
    assert (tmp_path / "run" / "results.json").read_bytes() == desk.expected
    count("out of memory")


def lock(run: Path, **changes: object) -> None:
    run.mkdir()
    (run / LOCK_NAME).write_text(json.dumps(asdict(replace(LockOwner.current(), **changes))))


@pytest.mark.parametrize(
    "changes",
    [{"process_start": "1"}, {"boot_id": "before"}, {"pid": 2**22 + 1}],
    ids=["reused", "boot", "gone"],
)
def test_a_lock_whose_owner_is_gone_is_taken_over(desk, changes, tmp_path, count):
    lock(tmp_path / "run", **changes)
    resumed(desk, tmp_path, desk.run(tmp_path / "run"), count, "stale locks")


def test_a_lock_of_another_host_is_respected_and_named(desk, tmp_path, count):
    lock(tmp_path / "run", host="elsewhere", pid=7)
    code, said = start(tmp_path, *desk.run(tmp_path / "run")).end()
    assert code == 2
    assert "in use by process 7 on elsewhere" in said
    assert f"delete {tmp_path / 'run' / LOCK_NAME}" in said
    assert said.count("\n") == 1
    assert socket.gethostname() not in said
    count("locks of others")


def test_many_processes_on_a_stale_lock_make_every_image_once(desk, tmp_path, count):
    lock(tmp_path / "run", pid=2**22 + 1)
    children = [start(tmp_path / str(one), *desk.run(tmp_path / "run"), pause=0.1) for one in range(4)]
    ends = [child.end() for child in children]
    made = [line for child in children for line in child.log if line != "detect"]
    assert sorted(code for code, _ in ends)[0] == 0
    assert all(code == 0 or (code == 2 and "in use by process" in said) for code, said in ends)
    assert len(made) == len(set(made)) == IMAGES
    assert (tmp_path / "run" / "results.json").read_bytes() == desk.expected
    count("two processes")


def test_every_field_of_another_identity_is_named(desk, tmp_path, count):
    shutil.copytree(desk.whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for options, field in (
        (("--seed", 1), "seed (0 there, 1 now)"),
        (("--num-inference-steps", 9), "sampling.num_inference_steps (3 there, 9 now)"),
        (("--limit", 2), f"layouts_count ({IMAGES} there, 2 now)"),
        (("--features", "none"), "evaluators.features.kind"),
    ):
        code, said = start(tmp_path, *desk.run(tmp_path / "run", *options)).end()
        assert (code, said.count("\n")) == (2, 1), said
        assert field in said
        count("other identity")
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    if after != before:
        count("lost")
    assert after == before
