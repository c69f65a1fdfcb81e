"""What a power cut would take: files that are renamed into place before they are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instbench import api
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from tests.instbench.fakes import (
    FakeDetector,
    FakeFeatures,
    FakeGenerator,
    FakeImageText,
    write_benchmark,
)

pytestmark = pytest.mark.faults


def test_every_file_is_synced_before_its_name_and_its_folder_after(tmp_path, monkeypatch, count):
    stand_ins = {
        GENERATORS: FakeGenerator,
        DETECTORS: FakeDetector,
        IMAGE_TEXT: FakeImageText,
        FEATURES: FakeFeatures,
    }
    synced: set[int] = set()
    open_folders: dict[int, str] = {}
    unsafe: list[str] = []
    named: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        synced.add(number)
        open_folders.pop(number, None)
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        if (tmp_path / "run") in Path(target).parents:  # the cache of reference features is made again
            if Path(source).stat().st_ino not in synced:
                unsafe.append(str(target))
            open_folders[Path(target).parent.stat().st_ino] = str(target)
            named.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    (tmp_path / "toy").mkdir()
    toy = write_benchmark(tmp_path / "toy")
    for registry, kind in stand_ins.items():
        registry.add(Entry("fake", "stand-in", kind))
    try:
        api.run(str(toy), tmp_path / "run", model="fake")
    finally:
        for registry in stand_ins:
            registry.remove("fake")
    for _ in named:
        count("files that power loss could take")
    for _ in [*unsafe, *open_folders.values()]:
        count("lost")
    assert unsafe == []
    assert open_folders == {}
    assert {"run.json", "results.json", "layouts.jsonl", "instances.parquet"} <= set(named)
    assert sum(name.endswith(".png") for name in named) == 5
