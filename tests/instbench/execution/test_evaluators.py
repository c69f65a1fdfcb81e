"""Evaluators that take the place of a benchmark's own, and category names that differ."""

from __future__ import annotations

import json

import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.execution.session import Session
from instbench.registry import DETECTORS, Entry
from instbench.runs.store import RunFolder
from tests.instbench.evaluators.builders import save_owl, save_yolo, yolo_network
from tests.instbench.fakes import FakeDetector, write_benchmark, write_coco


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


class _Hashed(FakeDetector):
    def identity(self):
        return {"kind": "hashed", "sha256": {"weights.pt": "ab" * 32}}


@pytest.fixture
def hashed():
    DETECTORS.add(Entry("hashed", "as fake, with a hash", _Hashed))
    yield
    DETECTORS.remove("hashed")


def test_results_say_which_evaluators_they_are_from(toy, tmp_path, fakes, hashed, capsys) -> None:
    arguments = ["run", toy, "--model", "fake", "--detector", "hashed", "-o", str(tmp_path / "run")]
    assert main(arguments) == 0
    run = RunFolder(tmp_path / "run")
    results = json.loads(run.results_json.read_text())
    assert results["evaluators"]["detector"] == {
        "name": "hashed",
        "kind": "hashed",
        "sha256": {"weights.pt": "ab" * 32},
    }
    assert results["evaluators"]["features"] == {"name": "fake", "kind": "fake-features", "sha256": {}}
    record = run.read_run()
    assert record.identity["evaluators"]["detector"]["kind"] == "hashed"
    assert record.benchmark["evaluators"]["detector"] == "hashed"
    assert record.settings_asked["evaluators"] == {"detector": "hashed"}
    capsys.readouterr()
    assert main(["run", toy, "--model", "fake", "-o", str(tmp_path / "run")]) == 2
    assert "evaluators.detector.kind (hashed there, fake-detector now)" in capsys.readouterr().err


def test_score_takes_other_evaluators_and_keeps_them(toy, tmp_path, fakes, hashed) -> None:
    [before] = api.run(toy, tmp_path / "run", model="fake")
    assert main(["score", str(tmp_path / "run"), "--detector", "hashed"]) == 0
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.results_json.read_text())["evaluators"]["detector"]["name"] == "hashed"
    [again] = api.score(tmp_path / "run", session=Session())
    assert again.results is not None
    assert again.results.evaluators["detector"].name == "hashed"
    assert before.results is not None
    assert again.results.identity_sha256 != before.results.identity_sha256
    # The same command on the same evaluators has the same identity.
    [same] = api.run(toy, tmp_path / "run", model="fake", detector="hashed")
    assert same.made == 0
    assert same.results is not None
    assert same.results.identity_sha256 == again.results.identity_sha256


def test_a_role_that_no_benchmark_uses_is_refused(tmp_path, fakes, capsys) -> None:
    (tmp_path / "toy").mkdir()
    metrics = [{"name": "mask_iou"}]
    toy = write_benchmark(tmp_path / "toy", evaluators={"detector": "fake"}, metrics=metrics)
    with pytest.raises(InputError, match="--features fake: toy-box uses no feature extractor; leave it out"):
        api.run(str(toy), tmp_path / "run", model="fake", features="fake")
    assert main(["run", str(toy), "--detector", "nobody", "-o", str(tmp_path / "run")]) == 2
    assert "unknown detector 'nobody'" in capsys.readouterr().err


def test_weights_by_relative_path_are_found_again(toy, tmp_path, fakes, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_yolo(tmp_path / "any.pt", yolo_network(names=("Cat", "dog", "couch")))
    api.run(toy, "run", model="fake", detector="any.pt", limit=2)
    monkeypatch.chdir("/")
    [outcome] = api.score(tmp_path / "run", session=Session())
    assert outcome.results is not None
    detector = outcome.results.evaluators["detector"]
    assert (detector.name, detector.kind) == (str(tmp_path / "any.pt"), "ultralytics-segment")
    assert len(detector.sha256["any.pt"]) == 64
    identity = RunFolder(tmp_path / "run").read_run().identity
    assert identity["evaluators"]["detector"]["renamed"] == {"Cat": "cat"}
    assert outcome.results.metrics["mask_iou"].n_unscored == 0


def test_names_that_differ_in_spelling_are_scored(tmp_path, fakes) -> None:
    (tmp_path / "toy").mkdir()
    write_coco(tmp_path / "toy", categories=("cat", "Hot_Dog"))
    toy = write_benchmark(tmp_path / "toy", metrics=[{"name": "mask_iou"}])

    class Spelt(FakeDetector):
        categories = ("cat", "hot dog")

    fakes.detector = Spelt()
    [outcome] = api.run(str(toy), tmp_path / "run", model="fake")
    assert outcome.results is not None
    assert outcome.results.metrics["mask_iou"].n_unscored == 0


def test_a_detector_that_knows_none_of_the_categories_is_refused(toy, tmp_path, fakes) -> None:
    with pytest.raises(InputError, match=r"knows none of the 2 categories asked for \(cat, dog\)"):
        api.run(toy, tmp_path / "run", model="fake", detector="shapes-yolo")


def test_an_open_vocabulary_detector_looks_for_the_benchmarks_categories(toy, tmp_path, fakes) -> None:
    owl = save_owl(tmp_path / "owl")
    [outcome] = api.run(toy, tmp_path / "run", model="fake", detector=owl, limit=2)
    assert outcome.results is not None
    assert outcome.results.metrics["box_ap50"].n_unscored == 0
    identity = RunFolder(tmp_path / "run").read_run().identity
    assert identity["evaluators"]["detector"]["categories"] == ["cat", "dog"]
