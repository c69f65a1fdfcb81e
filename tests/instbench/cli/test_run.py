from __future__ import annotations

import json

import pytest

from instbench.cli.main import main
from instbench.evaluators import shipped_folder
from instbench.execution import demo as demo_module
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from instbench.runs.store import RunFolder
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText, write_benchmark


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


def test_run_prints_a_table(toy, tmp_path, fakes, capsys):
    assert main(["run", toy, "--model", "fake", "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "toy-box v1 strict" in out
    assert "box_ap50" in out
    assert "1.000" in out
    assert "5 images made, 0 kept" in out


def test_run_json_is_nothing_but_json(toy, tmp_path, fakes, capsys):
    assert main(["run", toy, "--model", "fake", "-o", str(tmp_path / "run"), "--limit", "2", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["images_made"] == 2
    assert row["results"]["metrics"]["box_ap50"]["value"] == pytest.approx(1.0)


def test_options_reach_the_model(toy, tmp_path, fakes):
    arguments = ["--num-inference-steps", "7", "--seed", "3", "--batch-size", "2"]
    assert main(["generate", toy, "--model", "fake", "-o", str(tmp_path / "run"), *arguments]) == 0
    assert {request.sampling.num_inference_steps for request in fakes.generator.requests} == {7}
    assert fakes.generator.calls == 3
    assert not (tmp_path / "run" / "results.json").exists()


def test_ctrl_c_is_130_and_the_next_call_continues(toy, tmp_path, fakes, capsys):
    fakes.generator = FakeGenerator(stop_after=3)
    arguments = ["run", toy, "--model", "fake", "-o", str(tmp_path / "run")]
    assert main(arguments) == 130
    assert "interrupted; run the same command again to continue" in capsys.readouterr().err
    fakes.generator = FakeGenerator()
    assert main(arguments) == 0
    assert "2 images made, 3 kept" in capsys.readouterr().out


def test_failed_images_are_exit_code_1(toy, tmp_path, fakes, capsys):
    class Picky(FakeGenerator):
        def draw(self, request):
            if request.layout.image_key.endswith("14"):
                raise ValueError("no")
            return super().draw(request)

    fakes.generator = Picky()
    assert main(["run", toy, "--model", "fake", "-o", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr()
    assert "finished with failures: 1 images are missing" in printed.err
    assert "1 no image" in printed.out  # of the distance; the objects in it are missed


def test_a_dry_run_writes_nothing(toy, tmp_path, fakes, capsys):
    target = tmp_path / "run"
    assert main(["run", toy, "--model", "fake", "-o", str(target), "--dry-run", "--json"]) == 0
    [facts] = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["images_to_make"], facts["instances"]) == (5, 5, 10)
    assert not target.exists()
    main(["generate", toy, "--model", "fake", "-o", str(target)])
    capsys.readouterr()
    assert main(["run", toy, "--model", "fake", "-o", str(target), "--dry-run"]) == 0
    assert "images_to_make: 0" in capsys.readouterr().out
    assert main(["run", toy, "--model", "fake", "-o", str(target), "--dry-run", "--seed", "9"]) == 2


def test_score_reads_a_folder_of_runs(toy, tmp_path, fakes, capsys):
    main(["generate", toy, "--model", "fake", "-o", str(tmp_path / "runs" / "one")])
    capsys.readouterr()
    assert main(["score", str(tmp_path / "runs")]) == 0
    assert "0 images made, 5 kept" in capsys.readouterr().out
    assert RunFolder(tmp_path / "runs" / "one").read_results().model == "fake"


def shipped_categories() -> tuple[str, ...]:
    card = json.loads((shipped_folder("shapes-yolo") / "evaluator.json").read_text())
    return tuple(card["categories"])


@pytest.fixture
def stand_ins(monkeypatch) -> FakeGenerator:
    """Puts the fakes in the place of the shipped networks; the detector knows the names of shapes but sees none."""

    class Blind(FakeDetector):
        categories = shipped_categories()

    generator = FakeGenerator()
    for registry, name, made in (
        (GENERATORS, "reference", generator),
        (GENERATORS, "text-only", generator),
        (GENERATORS, "gligen", generator),
        (DETECTORS, "shapes-yolo", Blind()),
        (IMAGE_TEXT, "shapes-clip", FakeImageText()),
        (FEATURES, "shapes-features", FakeFeatures()),
    ):
        entries = {**registry._entries, name: Entry(name, "", lambda made=made: made)}
        monkeypatch.setattr(registry, "_entries", entries)
    return generator


def test_the_demo_prints_one_table_and_paths(tmp_path, monkeypatch, capsys, stand_ins):
    monkeypatch.setattr(demo_module, "DEMO_BENCHMARKS", ("shapes-box", "shapes-point"))
    assert main(["demo", "-o", str(tmp_path / "demo"), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    for text in ("text only", "GLIGEN-style", "reference", "real images", "box_ap50", "point_hit_rate"):
        assert text in out
    for page in ("reference/shapes-box/report.html", "leaderboard/index.html"):
        assert (tmp_path / "demo" / page).is_file()
        assert page in out
    overlays = sorted((tmp_path / "demo").rglob("overlays/*.png"))
    assert len(overlays) == 4
    assert str(overlays[0]) in out
    made = len(stand_ins.made)
    assert main(["demo", "-o", str(tmp_path / "demo"), "--limit", "2"]) == 0
    assert len(stand_ins.made) == made
    assert main(["demo", "-o", str(tmp_path / "demo"), "--limit", "1"]) == 2
    assert "--fresh" in capsys.readouterr().err
    assert main(["demo", "-o", str(tmp_path / "demo"), "--limit", "1", "--fresh"]) == 0


def test_the_doctor_fails_loudly_where_a_network_sees_nothing(capsys, monkeypatch, stand_ins):
    monkeypatch.setattr("instbench.benchmarks.benchmark_names", lambda: ["shapes-box", "shapes-real"])
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok    layouts of shapes-box: 256 layouts" in out
    assert "FAIL  detector shapes-yolo: 0 of" in out
    assert "ok    model reference" in out
    assert "checks failed" in out
