from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.merge import _Part, _whole
from instbench.execution.session import Session
from instbench.execution.shards import Shard
from instbench.generators.base import SamplingSettings
from instbench.runs.lock import RunLock
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder
from tests.instbench.fakes import write_benchmark


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


def run_shards(toy: str, where: Path, count: int, **more) -> list[Path]:
    folders = [where / f"shard-{index}-{count}" for index in range(count)]
    for index, folder in enumerate(folders):
        [outcome] = api.run(toy, folder, model="fake", shard=Shard(index, count), **more)
        assert outcome.results is None
    return folders


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "0/0", "0/2 ", "1.0/2", "0/9999999"])
def test_wrong_shards_are_refused(text, capsys):
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)
    assert main(["run", "shapes-box", f"--shard={text}", "-o", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_shards_take_every_layout_once():
    items = list(range(7))
    parts = [Shard.parse(f"{index}/3").take(items) for index in range(3)]
    assert parts == [(0, 3, 6), (1, 4), (2, 5)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_merged_shards_equal_an_undivided_run(toy, tmp_path, fakes, count):
    api.run(toy, tmp_path / "whole", model="fake")
    fakes.generator.made.clear()
    shards = run_shards(toy, tmp_path, count)
    assert len(fakes.generator.made) == len(set(fakes.generator.made)) == 5
    seen = fakes.detector.seen
    [outcome] = api.merge(shards[::-1], tmp_path / "joined")
    assert fakes.detector.seen == seen, "merge observes nothing again"
    assert (outcome.kept, outcome.failed) == (5, ())
    whole, joined = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "joined")
    assert joined.results_json.read_bytes() == whole.results_json.read_bytes()
    assert joined.layouts_jsonl.read_bytes() == whole.layouts_jsonl.read_bytes()
    names = sorted(path.name for path in whole.images.iterdir())
    assert names == sorted(path.name for path in joined.images.iterdir())
    assert all((joined.images / one).read_bytes() == (whole.images / one).read_bytes() for one in names)
    assert joined.read_run().status == "success"
    assert joined.read_run().shard is None
    assert joined.read_image_log().keys() == whole.read_image_log().keys()
    # The folder is a run like any other: asked for again, nothing is made.
    [again] = api.run(toy, tmp_path / "joined", model="fake")
    assert (again.made, again.kept) == (0, 5)


def test_times_of_the_shards_add_up_and_the_first_began(tmp_path):
    def part(number: int, started: str | None, **timings: float) -> _Part:
        record = RunRecord(
            identity={}, identity_sha256="0" * 64, model="m", benchmark={}, shard=f"{number}/3", error="old"
        )
        changed = {"started_at": started, "timings": timings, "seconds_in_networks": {"generate": 0.5}}
        return _Part(RunFolder(tmp_path / str(number)), record.model_copy(update=changed))

    parts = [
        part(0, "2026-01-02", generate=1.0, observe=2.0),
        part(1, "2026-01-01", generate=0.25),
        part(2, None),
    ]
    whole = _whole(parts, "archives")
    assert whole.timings == {"generate": 1.25, "observe": 2.0}
    assert whole.seconds_in_networks == {"generate": 1.5}
    assert (whole.started_at, whole.shard, whole.error) == ("2026-01-01", None, None)
    assert (whole.status, whole.image_store) == ("started", "archives")


def test_images_that_nobody_observed_are_observed_by_the_merge(toy, tmp_path, fakes):
    [whole] = api.run(toy, tmp_path / "whole", model="fake")
    folders = []
    for index in range(2):
        folders.append(tmp_path / f"part-{index}")
        api.generate(toy, folders[-1], model="fake", shard=Shard(index, 2))
    [outcome] = api.merge(folders, tmp_path / "joined")
    assert outcome.results == whole.results


def test_an_interrupted_merge_goes_on(toy, tmp_path, fakes, monkeypatch):
    [whole] = api.run(toy, tmp_path / "whole", model="fake")
    shards = run_shards(toy, tmp_path, 2)
    write, calls = RunFolder.log_image, []

    def stop(self, entry):
        calls.append(entry)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, entry)

    monkeypatch.setattr(RunFolder, "log_image", stop)
    with pytest.raises(KeyboardInterrupt):
        api.merge(shards, tmp_path / "joined")
    assert not (tmp_path / "joined" / "results.json").exists()
    [outcome] = api.merge(shards, tmp_path / "joined")
    assert outcome.results == whole.results


def test_a_missing_shard_is_named(toy, tmp_path, fakes):
    shards = run_shards(toy, tmp_path, 3)
    with pytest.raises(InputError, match=r"1 of 5 images are in no shard, .*given: 0/3, 1/3"):
        api.merge(shards[:2], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_shards_of_different_runs_are_refused_with_the_field(toy, tmp_path, fakes):
    one = run_shards(toy, tmp_path / "a", 2)
    other = run_shards(toy, tmp_path / "b", 2, seed=7)
    with pytest.raises(InputError, match=r"shard-1-2: another run than .*seed \(0 there, 7 now\)"):
        api.merge([one[0], other[1]], tmp_path / "joined")


def test_two_images_of_one_layout_must_be_equal(toy, tmp_path, fakes):
    shards = run_shards(toy, tmp_path, 2)
    name = next((shards[0] / "images").iterdir()).name
    shutil.copy(shards[0] / "images" / name, shards[1] / "images" / name)
    api.merge(shards, tmp_path / "equal")
    Image.new("RGB", (48, 48), "white").save(shards[1] / "images" / name)
    with pytest.raises(InputError, match="different images of one layout"):
        api.merge(shards, tmp_path / "different")
    assert not (tmp_path / "different").exists()


def test_a_shard_is_neither_scored_nor_taken_for_another(toy, tmp_path, fakes):
    shards = run_shards(toy, tmp_path, 2)
    with pytest.raises(InputError, match=r"is shard 0/2 of a run.*instbench merge"):
        api.score(shards[0])
    with pytest.raises(InputError, match=r"holds shard 0/2, asked now is shard 1/2"):
        api.run(toy, shards[0], model="fake", shard=Shard(1, 2))
    with pytest.raises(InputError, match=r"holds shard 0/2, asked now is the whole run"):
        api.run(toy, shards[0], model="fake")
    with pytest.raises(InputError, match="one of the shards"):
        api.merge(shards, shards[0])


def test_a_shard_in_use_is_refused(toy, tmp_path, fakes):
    shards = run_shards(toy, tmp_path, 2)
    with RunLock(shards[1]), pytest.raises(InputError, match="in use by process"):
        api.merge(shards, tmp_path / "joined")


def test_the_command_prints_the_numbers(toy, tmp_path, fakes, capsys):
    for index in range(2):
        arguments = ["run", toy, "--model", "fake", "--shard", f"{index}/2", "-o", str(tmp_path / f"{index}")]
        assert main([*arguments, "--dry-run", "--json"]) == 0
        [facts] = json.loads(capsys.readouterr().out)
        assert (facts["shard"], facts["images_to_make"]) == (f"{index}/2", 3 - index)
        assert main(arguments) == 0
        capsys.readouterr()
    capsys.readouterr()
    assert (
        main(["merge", str(tmp_path / "0"), str(tmp_path / "1"), "-o", str(tmp_path / "all"), "--json"]) == 0
    )
    [row] = json.loads(capsys.readouterr().out)
    assert row["results"]["metrics"]["box_ap50"]["value"] == pytest.approx(1.0)


@pytest.mark.slow
def test_merged_shards_of_the_shipped_weights_have_the_bytes_of_an_undivided_run(tmp_path):
    # Batches of one: the split changes who is in a batch, and that may round a pixel differently.
    session, few = Session(batch_size=1), SamplingSettings(num_inference_steps=8)
    api.run("shapes-box", tmp_path / "whole", limit=5, sampling=few, session=session)
    expected = (tmp_path / "whole" / "results.json").read_bytes()
    for count in (1, 2, 3):
        folders = [tmp_path / f"{index}-{count}" for index in range(count)]
        for index, folder in enumerate(folders):
            shard = Shard(index, count)
            api.run("shapes-box", folder, limit=5, sampling=few, shard=shard, session=session)
        api.merge(folders, tmp_path / f"joined-{count}", session=session)
        assert (tmp_path / f"joined-{count}" / "results.json").read_bytes() == expected
