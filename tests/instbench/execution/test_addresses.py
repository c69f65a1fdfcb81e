"""Runs at addresses of fsspec: the memory file system and local files, from one or two machines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.draw_source import from_run
from instbench.execution.shards import Shard
from instbench.runs import mirror, remote
from instbench.runs.away import HASHES_NAME
from instbench.runs.lock import LOCK_NAME
from instbench.runs.remote import Target, TargetLock
from tests.instbench.fakes import write_benchmark

KEYS = [f"{index:012d}" for index in range(11, 16)]


@pytest.fixture(autouse=True)
def memory():
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path) -> str:
    return "memory://bucket/runs/try" if request.param == "memory" else f"file://{tmp_path}/at/try"


@pytest.fixture
def bucket() -> str:
    return "memory://bucket/runs/try"


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Moves to another machine: one that has staged nothing."""

    def move(name: str) -> Path:
        monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / f"machine-{name}"))
        return tmp_path / f"machine-{name}"

    move("first")
    return move


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Names of the files that are fetched, in order."""
    names: list[str] = []
    get = Target.get

    def noted(self, name, path):
        names.append(name)
        get(self, name, path)

    monkeypatch.setattr(Target, "get", noted)
    return names


def images(fetched: list[str]) -> list[str]:
    return sorted(name for name in fetched if name.endswith(".png"))


def names(address: str) -> set[str]:
    return set(Target(address).files())


def content(address: str, name: str) -> bytes:
    data = Target(address).read_bytes(name)
    assert data is not None
    return data


@pytest.mark.parametrize("store", ["files", "archives"])
def test_a_run_at_an_address_has_the_files_of_a_local_one(toy, tmp_path, fakes, address, machine, store):
    api.run(toy, tmp_path / "local", model="fake", image_store=store)
    [outcome] = api.run(toy, address, model="fake", image_store=store)
    assert (outcome.made, outcome.address) == (5, address)
    here = {path.relative_to(tmp_path / "local").as_posix() for path in (tmp_path / "local").rglob("*.*")}
    extra = {HASHES_NAME} if store == "files" else set()
    assert names(address) == here | extra
    for name in here - {"run.json", "images.jsonl"}:
        assert content(address, name) == (tmp_path / "local" / name).read_bytes(), name
    machine("second")
    fakes.generator.made.clear()
    seen = fakes.detector.seen
    [again] = api.run(toy, address, model="fake")
    assert (again.made, again.kept, fakes.generator.made, fakes.detector.seen) == (0, 5, [], seen)
    assert names(address) == here | extra


@pytest.mark.parametrize("store", ["files", "archives"])
@pytest.mark.parametrize("where", ["first", "second"])
def test_an_interrupted_run_goes_on_from_the_address(toy, tmp_path, fakes, bucket, machine, store, where):
    address = bucket
    api.run(toy, tmp_path / "whole", model="fake")
    fakes.generator.made.clear()
    fakes.generator.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, address, model="fake", image_store=store)
    assert LOCK_NAME not in names(address)
    machine(where)
    fakes.generator.stop_after = None
    [outcome] = api.run(toy, address, model="fake")
    assert (outcome.made, outcome.kept) == (2, 3)
    assert sorted(fakes.generator.made) == KEYS
    assert content(address, "results.json") == (tmp_path / "whole" / "results.json").read_bytes()


def test_what_a_killed_process_had_pushed_is_not_made_again(toy, fakes, address, machine, monkeypatch):
    """No flush at the end: what is there was pushed image by image."""
    monkeypatch.setattr(mirror, "PUSH_EVERY", 3)
    for store, kept in (("files", 4), ("archives", 2)):  # the log reaches 3 before the archive does
        machine("first")
        where = f"{address}-{store}"
        fakes.generator.made.clear()
        fakes.generator.stop_after, fakes.generator.error = 4, SystemExit()  # notes nothing in run.json
        with monkeypatch.context() as patch:
            patch.setattr(mirror._Mirror, "flush", lambda self: None)
            patch.setattr(TargetLock, "__exit__", lambda self, *_: self._stop.set())
            with pytest.raises(SystemExit):
                api.run(toy, where, model="fake", image_store=store)
        fakes.generator.stop_after = None
        machine("second")
        with pytest.raises(InputError, match="in use by process"):
            api.run(toy, where, model="fake")
        with monkeypatch.context() as patch:
            patch.setattr(remote, "LOCK_STALE_AFTER", -1.0)
            [outcome] = api.run(toy, where, model="fake")
        assert (outcome.made, outcome.kept) == (5 - kept, kept)
        # The first machine has an image that was never pushed, and takes over what the second one made.
        machine("first")
        [outcome] = api.run(toy, where, model="fake")
        assert (outcome.made, outcome.kept) == (0, 5)


def test_unpushed_images_of_a_former_run_do_not_pass_for_those_of_another(
    toy, fakes, bucket, machine, monkeypatch
):
    address = bucket
    fakes.generator.stop_after = 3
    with monkeypatch.context() as patch:
        patch.setattr(Target, "put", lambda self, path, name: remote.TargetFile(0, "never"))
        with pytest.raises(KeyboardInterrupt):
            api.run(toy, address, model="fake")
    fakes.generator.stop_after = None
    machine("second")
    api.generate(toy, address, model="fake", seed=7, shard=Shard(0, 2))
    machine("first")
    [outcome] = api.generate(toy, address, model="fake", seed=7, shard=Shard(0, 2))
    assert (outcome.made, outcome.kept) == (0, 3)
    assert {name for name in names(address) if name.endswith(".png")} == {
        f"images/{KEYS[n]}.png" for n in (0, 2, 4)
    }


def test_another_run_is_refused_and_fresh_deletes_it_there_too(toy, fakes, address, machine):
    api.run(toy, address, model="fake")
    machine("second")
    with pytest.raises(InputError, match=r"holds another run: .*seed \(0 there, 7 now\)") as error:
        api.run(toy, address, model="fake", seed=7)
    assert str(error.value).startswith(address)
    api.generate(toy, address, model="fake", seed=7, fresh=True)
    assert names(address) == {
        "run.json",
        "layouts.jsonl",
        "images.jsonl",
        HASHES_NAME,
        *(f"images/{key}.png" for key in KEYS),
    }


def test_all_verbs_take_addresses(toy, tmp_path, fakes, bucket, machine, capsys):
    address = bucket
    for index in range(2):
        part = f"{address}/part-{index}"
        assert main(["generate", toy, "--model", "fake", "--shard", f"{index}/2", "-o", part]) == 0
        assert f"{part}: {3 - index} images made" in capsys.readouterr().out
    assert main(["merge", f"{address}/part-0", f"{address}/part-1", "-o", f"{address}/all"]) == 0
    assert main(["run", toy, "--model", "fake", "-o", str(tmp_path / "local")]) == 0
    assert content(f"{address}/all", "results.json") == (tmp_path / "local" / "results.json").read_bytes()
    capsys.readouterr()
    assert main(["run", toy, "--model", "fake", "-o", f"{address}/all", "--dry-run", "--json"]) == 0
    [facts] = json.loads(capsys.readouterr().out)
    assert (facts["folder"], facts["images_to_make"]) == (f"{address}/all", 0)
    assert main(["score", f"{address}/all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["folder"] == f"{address}/all"
    assert (
        main(["compare", f"{address}/all", str(tmp_path / "local"), "--labels", "a", "b", "--format", "csv"])
        == 0
    )
    assert "box_ap50" in capsys.readouterr().out
    assert main(["compare", f"{address}/all", str(tmp_path / "local"), "--format", "csv"]) == 0
    assert f"fake ({address}/all)" in capsys.readouterr().out
    assert main(["report", f"{address}/all"]) == 0
    assert capsys.readouterr().out.strip() == f"{address}/all/report.html"
    assert "report.html" in names(f"{address}/all")
    assert main(["report", f"{address}/all", str(tmp_path / "local"), "-o", str(tmp_path / "both.html")]) == 0
    assert main(["score", toy, "--benchmark", toy, "-o", f"{address}/x"]) == 2


def test_a_folder_of_runs(toy, tmp_path, fakes, bucket, machine):
    address = bucket
    other = str(write_benchmark(tmp_path / "toy", name="toy-two"))
    outcomes = api.run([toy, other], address, model="fake")
    assert [one.address for one in outcomes] == [f"{address}/toy-box", f"{address}/toy-two"]
    machine("second")
    assert [one.kept for one in api.score(address)] == [5, 5]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nothing://bucket/run", "nothing"),
        ("simplecache::memory://bucket/run", "chained"),
        ("memory://bucket/taken", r"holds files that are no run \(thesis\.tex\)"),
        ("memory://bucket/taken/thesis.tex", "is a file, not a folder; choose another address"),
        ("memory://", r"memory://: names no bucket or folder; give one, such as s3://"),
        ("http://user:secret@127.0.0.1:9/run?key=hidden", "cannot"),
    ],
)
def test_bad_addresses_are_one_line_without_secrets(toy, fakes, machine, memory, capsys, url, words):
    memory.pipe_file("/bucket/taken/thesis.tex", b"mine")
    assert main(["run", toy, "--model", "fake", "-o", url]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0, error
    assert "secret" not in error
    assert "hidden" not in error
    assert re.search(words, error), error
    assert [name for name in memory.find("/bucket") if not name.endswith("thesis.tex")] == []


def test_a_target_that_vanishes_or_forbids_is_one_line(toy, fakes, machine, monkeypatch, capsys):
    put, calls = Target.put, []

    def broken(self, path, name):
        calls.append(name)
        if len(calls) > 4:
            with self._one_line(f"write {name}"):
                raise PermissionError("denied")
        return put(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Target, "put", broken)
        assert main(["-q", "run", toy, "--model", "fake", "-o", "memory://bucket/run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "memory://bucket/run: cannot write images" in error
    assert "PermissionError: denied" in error
    [outcome] = api.run(toy, "memory://bucket/run", model="fake")
    assert outcome.made + outcome.kept == 5
    assert outcome.kept >= 2


def test_a_missing_package_is_named(toy, fakes, machine, capsys, monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    assert main(["run", toy, "--model", "fake", "-o", "s3://bucket/run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Install s3fs to access S3); pip install 'instbench[s3]', then run" in error


def test_folder_marks_of_object_stores_are_no_files(toy, fakes, machine, memory, monkeypatch):
    find = type(memory).find

    def with_marks(self, path, **options):
        mark = {"type": "file", "size": 0}
        return find(self, path, **options) | {f"{path}/": mark, f"{path}/images/": mark}

    monkeypatch.setattr(type(memory), "find", with_marks)
    [outcome] = api.generate(toy, "memory://bucket/run", model="fake")
    assert outcome.made == 5


def test_a_comparison_fetches_only_what_it_reads(toy, fakes, bucket, machine, fetched):
    api.run(toy, bucket, model="fake")
    api.compare([bucket, bucket], objects=True, slices=True)
    assert sorted(set(fetched)) == ["instances.parquet", "results.json", "run.json", "samples.npz"]


def test_a_run_that_goes_on_elsewhere_fetches_only_images_that_nobody_observed(
    toy, tmp_path, fakes, address, machine, fetched
):
    api.run(toy, tmp_path / "local", model="fake")
    fakes.generator.made.clear()
    fakes.generator.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, address, model="fake")
    fakes.generator.stop_after = None
    machine("second")
    assert main(["run", toy, "--model", "fake", "-o", address, "--dry-run"]) == 0
    [outcome] = api.generate(toy, address, model="fake")
    assert (outcome.made, outcome.kept, images(fetched)) == (2, 3, [])
    machine("third")
    api.run(toy, address, model="fake")
    assert images(fetched) == [f"images/{key}.png" for key in KEYS]
    assert content(address, "results.json") == (tmp_path / "local" / "results.json").read_bytes()
    api.score(address)
    assert len(images(fetched)) == 5
    machine("fourth")
    fakes.generator.made.clear()
    [outcome] = api.run(toy, address, model="fake")
    [again] = api.score(address)
    assert (outcome.kept, again.kept, fakes.generator.made, len(images(fetched))) == (5, 5, [], 5)
    assert names(address) >= {f"images/{key}.png" for key in KEYS}
    assert content(address, "results.json") == (tmp_path / "local" / "results.json").read_bytes()
    assert main(["report", address, "-o", str(tmp_path / "page.html")]) == 0
    assert len(images(fetched)) == 10


@pytest.mark.parametrize("store", ["files", "archives"])
def test_a_drawing_starts_from_an_image_at_an_address(toy, tmp_path, fakes, bucket, machine, fetched, store):
    api.generate(toy, tmp_path / "local", model="fake", image_store=store)
    api.generate(toy, bucket, model="fake", image_store=store)
    here = from_run(f"{tmp_path}/local/{KEYS[2]}")
    assert here.picture is not None
    place = here.picture_place.replace(f"{tmp_path}/local", bucket)
    there = replace(here, picture_place=place, origin=dict(here.origin))
    assert from_run(f"{bucket}/{KEYS[2]}") == there
    assert from_run(f"{bucket}/images/{KEYS[2]}.png") == there
    assert images(fetched) == ([f"images/{KEYS[2]}.png"] * 2 if store == "files" else [])
    for wrong, words in (("nothing", "layouts.jsonl has no image 'nothing'"), ("no/run", "no run here")):
        with pytest.raises(InputError, match=words) as error:
            from_run(f"{bucket}/{wrong}")
        assert bucket in str(error.value)


def test_images_whose_hashes_are_not_there_are_fetched_once(toy, fakes, bucket, machine, memory, fetched):
    api.run(toy, bucket, model="fake")
    hashes = content(bucket, HASHES_NAME)
    memory.rm_file("/bucket/runs/try/" + HASHES_NAME)
    machine("second")
    api.run(toy, bucket, model="fake")
    assert len(images(fetched)) == 5
    assert sorted(content(bucket, HASHES_NAME).splitlines()) == sorted(hashes.splitlines())
    machine("third")
    # Another file under the name of an image: its hash is not that which was noted, and it is no image.
    memory.pipe_file(f"/bucket/runs/try/images/{KEYS[1]}.png", b"torn")
    memory.pipe_file("/bucket/runs/try/" + HASHES_NAME, hashes + b"\n[]\n{")
    fakes.generator.made.clear()
    [outcome] = api.run(toy, bucket, model="fake")
    assert (outcome.made, outcome.kept, fakes.generator.made) == (1, 4, [KEYS[1]])
    assert images(fetched)[-1:] == [f"images/{KEYS[4]}.png"]
    assert len(images(fetched)) == 6
    machine("fourth")
    [outcome] = api.run(toy, bucket, model="fake")
    assert (outcome.made, len(images(fetched))) == (0, 6)


def test_fresh_deletes_images_that_were_never_fetched(toy, fakes, bucket, machine, fetched):
    api.run(toy, bucket, model="fake")
    machine("second")
    api.generate(toy, bucket, model="fake", seed=7, shard=Shard(0, 2), fresh=True)
    assert images(fetched) == []
    assert {name for name in names(bucket) if "image" in name} == {
        "images.jsonl",
        HASHES_NAME,
        *(f"images/{KEYS[n]}.png" for n in (0, 2, 4)),
    }
    assert len(content(bucket, HASHES_NAME).splitlines()) == 3


def test_images_without_a_run_are_refused(toy, fakes, bucket, machine, memory):
    api.run(toy, bucket, model="fake")
    memory.rm_file("/bucket/runs/try/run.json")
    machine("second")
    with pytest.raises(InputError, match=r"holds files that are no run \(images, .*choose another -o"):
        api.run(toy, bucket, model="fake")
    assert f"images/{KEYS[0]}.png" in names(bucket)


def test_a_merge_that_goes_on_fetches_only_what_is_not_joined_yet(toy, fakes, bucket, machine, fetched):
    parts = [f"{bucket}/part-{index}" for index in range(2)]
    for index, part in enumerate(parts):
        api.generate(toy, part, model="fake", shard=Shard(index, 2))
    api.merge(parts, f"{bucket}/all")
    assert len(images(fetched)) == 5
    machine("second")
    api.merge(parts, f"{bucket}/all")
    assert len(images(fetched)) == 5


def test_no_credentials_in_the_files_of_a_run(toy, fakes, machine, memory):
    api.run(toy, "memory://user:secret@bucket/run", model="fake")
    assert not [name for name in memory.find("") if b"secret" in memory.cat_file(name)]


def test_names_at_the_target_never_lead_out_of_the_staging_folder(toy, fakes, machine, monkeypatch):
    api.run(toy, "memory://bucket/run", model="fake")
    files = Target.files

    def hostile(self):
        return {
            **files(self),
            "../../evil.png": remote.TargetFile(1, "x"),
            "images/../../x.png": remote.TargetFile(1, "x"),
        }

    monkeypatch.setattr(Target, "files", hostile)
    home = machine("second")
    api.run(toy, "memory://bucket/run", model="fake")
    assert not [path for path in home.rglob("*") if path.name in ("evil.png", "x.png")]


def test_no_temporary_files_are_left_at_a_file_system(toy, fakes, machine, tmp_path):
    api.run(toy, f"file://{tmp_path}/at/run", model="fake")
    assert not list((tmp_path / "at").rglob(".*"))
    (tmp_path / "at" / "run" / ".tmp-0-run.json").write_bytes(b"half")
    api.run(toy, f"file://{tmp_path}/at/run", model="fake")
    assert not list((tmp_path / "at").rglob(".*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["ablate", "shapes", "-o", "s3://bucket/x"],
        ["demo", "-o", "s3://bucket/x"],
        ["draw", "a.json", "-o", "s3://bucket/x"],
        ["draw", "--from", "s3://bucket/x/1", "-o", "s3://bucket/y"],
        ["leaderboard", "check", "s3://bucket/x"],
    ],
)
def test_verbs_that_take_no_address_say_so(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "takes no address" in error
    assert list(tmp_path.iterdir()) == []
