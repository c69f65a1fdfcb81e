"""Runs that keep their images in archives give the numbers of those that keep files."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.draw_source import from_run
from instbench.execution.shards import Shard
from instbench.reports.html import build_report
from instbench.runs.archives import ImageArchives
from instbench.runs.store import RunFolder
from tests.instbench.fakes import write_benchmark

KEYS = [f"{index:012d}" for index in range(11, 16)]


@pytest.fixture
def toy(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(ImageArchives, "shard_images", 2)
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


def images(folder: Path) -> dict[str, bytes]:
    store = RunFolder(folder).pictures
    return {key: store.read(key) for key in store.keys()}  # noqa: SIM118 - no mapping


def test_both_ways_give_the_same_bytes(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "files", model="fake")
    [outcome] = api.run(toy, tmp_path / "archives", model="fake", image_store="archives")
    assert (outcome.made, outcome.kept) == (5, 0)
    for name in ("results.json", "layouts.jsonl", "samples.npz"):
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "archives" / name).read_bytes()
    assert images(tmp_path / "files") == images(tmp_path / "archives")
    assert list(images(tmp_path / "files")) == KEYS
    names = sorted(path.name for path in (tmp_path / "archives" / "images").iterdir())
    assert names == ["images-00000.tar", "images-00001.tar", "images-00002.tar"]
    records = [RunFolder(tmp_path / name).read_run() for name in ("files", "archives")]
    assert [one.image_store for one in records] == ["files", "archives"]
    assert records[0].identity_sha256 == records[1].identity_sha256


def test_an_interrupted_run_goes_on_in_its_archives(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "whole", model="fake")
    fakes.generator.made.clear()
    fakes.generator.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, tmp_path / "run", model="fake", image_store="archives")
    last = tmp_path / "run" / "images" / "images-00001.tar"
    with last.open("ab") as stream:
        stream.write(b"half an entry")
    fakes.generator.stop_after = None
    [outcome] = api.run(toy, tmp_path / "run", model="fake")  # the folder knows how it keeps its images
    assert (outcome.made, outcome.kept) == (2, 3)
    assert sorted(fakes.generator.made) == KEYS
    expected = (tmp_path / "whole" / "results.json").read_bytes()
    assert (tmp_path / "run" / "results.json").read_bytes() == expected


def test_the_other_way_is_refused_for_a_run_that_is_there(toy, tmp_path, fakes, capsys):
    arguments = ["run", toy, "--model", "fake", "-o", str(tmp_path / "run")]
    assert main([*arguments, "--image-store", "archives"]) == 0
    capsys.readouterr()
    for extra in ([], ["--dry-run"]):
        assert main([*arguments, "--image-store", "files", *extra]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "keeps its images in archives; leave --image-store files out" in error
    assert main([*arguments, "--image-store", "files", "--fresh"]) == 0
    assert sorted(path.name for path in (tmp_path / "run" / "images").iterdir()) == [f"{k}.png" for k in KEYS]
    with pytest.raises(InputError, match="--image-store zip"):
        api.run(toy, tmp_path / "other", model="fake", image_store="zip")  # type: ignore[arg-type]


@pytest.mark.parametrize("stores", [("files", "archives"), ("archives", "files"), ("archives", "archives")])
def test_shards_of_either_kind_are_merged(toy, tmp_path, fakes, stores):
    api.run(toy, tmp_path / "whole", model="fake")
    shards = [tmp_path / "0", tmp_path / "1"]
    for index, (folder, store) in enumerate(zip(shards, stores, strict=True)):
        api.run(toy, folder, model="fake", shard=Shard(index, 2), image_store=store)
    api.merge(shards, tmp_path / "joined")
    api.merge(shards, tmp_path / "turned", image_store="files" if stores[0] == "archives" else "archives")
    for name in ("joined", "turned"):
        assert images(tmp_path / name) == images(tmp_path / "whole")
        expected = (tmp_path / "whole" / "results.json").read_bytes()
        assert (tmp_path / name / "results.json").read_bytes() == expected
    assert RunFolder(tmp_path / "joined").read_run().image_store == stores[0]
    assert RunFolder(tmp_path / "turned").read_run().image_store != stores[0]
    [again] = api.merge(shards, tmp_path / "joined")
    assert again.kept == 5
    with pytest.raises(InputError, match="keeps its images in"):
        api.merge(shards, tmp_path / "turned", image_store=stores[0])


def test_different_images_in_two_archives_are_named(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "0", model="fake", image_store="archives")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    stores = [RunFolder(tmp_path / name).pictures for name in "01"]
    stores[1].write(KEYS[0], stores[0].read(KEYS[1]))
    with pytest.raises(
        InputError, match=rf"00000\.tar: {KEYS[0]}\.png and .*1/images/images-00002\.tar: {KEYS[0]}"
    ):
        api.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "joined")


def test_score_report_and_draw_read_archives(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake", image_store="archives")
    seen = fakes.detector.seen
    [outcome] = api.score(tmp_path / "run")
    assert (outcome.kept, outcome.failed, fakes.detector.seen) == (5, (), seen)
    page = build_report(tmp_path / "run").read_text(encoding="utf-8")
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert all("picture" in one["views"][0] for one in json.loads(data)["images"])
    source = from_run(f"{tmp_path / 'run'}/{KEYS[0]}")
    assert source.picture == RunFolder(tmp_path / "run").pictures.read(KEYS[0])
    assert "images-00000.tar" in source.picture_place


def test_a_folder_of_archives_is_no_folder_of_images(toy, tmp_path, fakes, capsys):
    api.run(toy, tmp_path / "run", model="fake", image_store="archives")
    where = tmp_path / "run" / "images"
    capsys.readouterr()
    assert main(["score", str(where), "--benchmark", toy, "-o", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unpack them elsewhere (tar -xf)" in error


def test_an_archive_with_anything_else_is_one_line(toy, tmp_path, fakes, capsys):
    api.run(toy, tmp_path / "run", model="fake", image_store="archives")
    with tarfile.open(tmp_path / "run" / "images" / "images-00000.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil.png"))
    page = str(tmp_path / "page.html")
    for arguments in (["run", toy, "--model", "fake", "-o"], ["score"], ["report", "-o", page]):
        assert main([*arguments, str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "'../../evil.png' is no image of a run" in error
