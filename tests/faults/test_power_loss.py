"""Power cuts at every sync and rename: what had been finished is there, and the numbers come out the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from instbench import api
from instbench.execution.observe import observe_images
from instbench.execution.shards import Shard
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from instbench.runs.archives import ImageArchives
from instbench.runs.store import RunFolder
from instbench.runs.tables import ObservationTable
from tests.faults.disk import STATES, WatchedDisk
from tests.instbench.fakes import (
    CANVAS,
    FakeDetector,
    FakeFeatures,
    FakeGenerator,
    FakeImageText,
    write_benchmark,
    write_coco,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to read what was synced"),
]
IMAGES = 4


@dataclass
class Work:
    """What one process finished, and what its stand-ins had to do for it.

    Attributes:
        images: Keys of the images that were handed over as written.
        logged: Keys with a line in the log.
        observed: Rows of detections that were handed over as written.
    """

    images: set[str] = field(default_factory=set)
    logged: set[str] = field(default_factory=set)
    observed: set[str] = field(default_factory=set)

    def copy(self) -> Work:
        return Work(set(self.images), set(self.logged), set(self.observed))


@dataclass(frozen=True)
class Cut:
    """A folder as a power cut left it, and what had been finished before."""

    folder: Path
    state: str
    done: Work


class World:
    """A benchmark with stand-ins for the networks, watched while it runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        write_coco(folder / "toy", IMAGES)
        metrics = [{"name": one} for one in ("box_ap50", "mask_iou", "fid")]
        self.benchmark = str(write_benchmark(folder / "toy", metrics=metrics))
        self.work = Work()
        self.generator = FakeGenerator()
        self.detector = FakeDetector()
        write_image, log_image, flush = RunFolder.write_image, RunFolder.log_image, ObservationTable.flush

        def watched_image(run: RunFolder, key: str, image: object) -> None:
            write_image(run, key, image)  # type: ignore[arg-type]
            self.work.images.add(key)

        def watched_log(run: RunFolder, entry: dict) -> None:
            log_image(run, entry)
            self.work.logged.add(entry["image_key"])

        def watched_flush(table: ObservationTable) -> None:
            flush(table)
            if table.name == "detections":
                self.work.observed |= set(table.rows)

        monkeypatch.setattr(RunFolder, "write_image", watched_image)
        monkeypatch.setattr(RunFolder, "log_image", watched_log)
        monkeypatch.setattr(ObservationTable, "flush", watched_flush)

    def run(self, folder: Path, **more: object) -> None:
        api.run(self.benchmark, folder, model="fake", **more)  # type: ignore[arg-type]

    def cuts(self, top: Path, call: Callable[[], object]) -> list[Cut]:
        """Lets a call run to its end and gives the folder `top` as it was after each of its syncs and renames."""
        found: list[Cut] = []
        before: dict[str, object] = {}

        def cut() -> None:
            for state in STATES:
                target = self.folder / f"cut-{len(found)}"
                disk.after_cut(target, state)
                content = {p.relative_to(target): p.is_file() and p.read_bytes() for p in target.rglob("*")}
                now = (content, self.work.copy())
                if now == before.get(state):
                    shutil.rmtree(target)
                    continue
                before[state] = now
                found.append(Cut(target, state, now[1]))

        with WatchedDisk(top, cut) as disk:
            call()
        return found


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[World]:
    monkeypatch.setitem(observe_images.__kwdefaults__, "chunk", 2)
    made = World(tmp_path, monkeypatch)
    stand_ins = {
        GENERATORS: lambda: made.generator,
        DETECTORS: lambda: made.detector,
        IMAGE_TEXT: FakeImageText,
        FEATURES: FakeFeatures,
    }
    for registry, kind in stand_ins.items():
        registry.add(Entry("fake", "stand-in", kind))
    yield made
    for registry in stand_ins:
        registry.remove("fake")


def lost(world: World, cut: Cut, run: Path, expected: bytes, resume: Callable[[], object]) -> list[str]:
    """What a power cut took of the finished work, and what resuming did not bring back."""
    folder = RunFolder(run)
    there = {key for key in folder.pictures.keys() if folder.has_image(key, CANVAS)}  # noqa: SIM118 - no mapping
    missing = [f"image {key}" for key in cut.done.images - there]
    missing += [f"log line {key}" for key in cut.done.logged - folder.read_image_log().keys()]
    world.generator.made.clear()
    world.detector.seen = 0
    resume()
    missing += [f"image {key} made twice" for key in cut.done.images & set(world.generator.made)]
    if world.detector.seen > IMAGES - len(cut.done.observed):
        missing.append("observations made twice")
    if folder.results_json.read_bytes() != expected:
        missing.append("results.json")
    if len(folder.read_image_log()) != IMAGES:
        missing.append("lines of images.jsonl")
    missing += map(str, run.rglob(".tmp-*"))
    return [f"{cut.folder.name} ({cut.state}): {one}" for one in missing]


def check(losses: list[str], count: Callable[[str], None]) -> None:
    for _ in losses:
        count("lost")
    assert losses == []


@pytest.mark.parametrize("store", ["files", "archives"])
def test_a_run_goes_on_after_a_power_cut_anywhere(world, tmp_path, count, store, monkeypatch):
    monkeypatch.setattr(ImageArchives, "shard_images", 3)
    top = tmp_path / "top"
    top.mkdir()
    cuts = world.cuts(top, lambda: world.run(top / "deep" / "run", image_store=store))
    expected = (top / "deep" / "run" / "results.json").read_bytes()
    assert len(cuts) > 60
    losses = []
    for cut in cuts[:: 1 if store == "files" else 2]:
        run = cut.folder / "deep" / "run"
        losses += lost(world, cut, run, expected, lambda run=run: world.run(run))
        count("power cuts")
    check(losses, count)


def test_a_merge_goes_on_after_a_power_cut_anywhere(world, tmp_path, count):
    top, shards = tmp_path / "top", [tmp_path / "shard-0", tmp_path / "shard-1"]
    top.mkdir()
    for index, shard in enumerate(shards):
        world.run(shard, shard=Shard(index, 2))
    world.work = Work(observed=set(world.work.observed))  # merge takes observations over and must make none
    cuts = world.cuts(top, lambda: api.merge(shards, top / "joined"))
    expected = (top / "joined" / "results.json").read_bytes()
    assert len(cuts) > 30
    losses = []
    for cut in cuts[::2]:
        run = cut.folder / "joined"
        losses += lost(world, cut, run, expected, lambda run=run: api.merge(shards, run))
        count("power cuts in a merge")
    check(losses, count)


def test_scoring_again_goes_on_after_a_power_cut_anywhere(world, tmp_path, count):
    top = tmp_path / "top"
    top.mkdir()
    world.run(top / "run")
    expected = (top / "run" / "results.json").read_bytes()
    cuts = world.cuts(top, lambda: api.score(top / "run"))
    assert len(cuts) > 10
    losses = []
    for cut in cuts:
        run = cut.folder / "run"
        losses += lost(world, cut, run, expected, lambda run=run: api.score(run))
        count("power cuts while scoring")
    check(losses, count)


def test_starting_afresh_goes_on_after_a_power_cut_anywhere(world, tmp_path, count):
    top = tmp_path / "top"
    top.mkdir()
    world.run(top / "run", seed=1)
    world.work = Work()
    cuts = world.cuts(top, lambda: world.run(top / "run", fresh=True))
    expected = (top / "run" / "results.json").read_bytes()
    losses = []
    for cut in cuts[::4]:
        world.run(cut.folder / "run", fresh=True)
        if (cut.folder / "run" / "results.json").read_bytes() != expected:
            losses.append(f"{cut.folder.name} ({cut.state}): results.json")
        count("power cuts while starting afresh")
    check(losses, count)
