from __future__ import annotations

import json

import pytest

from instbench import api
from instbench.cli.main import main
from tests.instbench.fakes import write_benchmark

SHORT = {
    "caption": "A cat.",
    "units": "relative",
    "instances": [{"phrase": "a cat\x1b[31m", "category": "cat", "box": [0.1, 0.1, 0.4, 0.4]}],
}


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My Cat.json").write_text(json.dumps(SHORT))
    return "My Cat.json"


def test_draw_writes_below_drawn_and_says_where(layout, tmp_path, fakes, capsys):
    assert main(["draw", layout, "--model", "fake", "--size", "48", "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert "drawn/my-cat: 2 images made" in out
    assert "\x1b" not in out
    assert (tmp_path / "drawn" / "my-cat" / "0002.png").is_file()


def test_options_reach_the_model(layout, fakes, capsys):
    arguments = ["--conditions", "box", "--num-inference-steps", "7", "--seed", "3", "--json"]
    assert main(["draw", layout, "--model", "fake", "--size", "48", "-o", "out", *arguments]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["sampling"]["num_inference_steps"] == 7
    assert record["seeds"]["seed"] == 3
    assert fakes.generator.requests[0].seed == record["images"][0]["seed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either LAYOUT.json or --from"),
        (["none.json"], "none.json: no such file"),
        (["--from", "nowhere/x"], "no run here"),
        (["My Cat.json", "--conditions", "boxes"], "give some of box"),
        (["My Cat.json", "--model", "nothing"], "nothing"),
        (["My Cat.json", "--checkpoint", "nowhere"], "--checkpoint nowhere: no such"),
    ],
)
def test_bad_input_is_one_line(layout, fakes, capsys, arguments, message):
    assert main(["draw", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_edits_are_reported(layout, fakes, capsys):
    arguments = ["--edit", "move 0 0.5,0.5", "--edit", 'add "a dog" 0.0,0.0,0.2,0.2']
    assert main(["draw", layout, "--model", "fake", "--size", "48", "-o", "out", *arguments]) == 0
    out = capsys.readouterr().out
    assert "(moved)" in out
    assert "->1  a dog (added)" in out
    assert "everywhere else" in out


def test_a_bad_edit_is_found_before_anything_is_loaded(layout, fakes, capsys):
    assert main(["draw", layout, "--model", "fake", "--edit", "move 5 0.1,0.1"]) == 2
    assert "there is no instance 5" in capsys.readouterr().err
    assert fakes.generator.calls == 0


def test_an_image_of_a_run_is_compared_with_it(tmp_path, monkeypatch, fakes, capsys):
    monkeypatch.chdir(tmp_path)
    api.generate(str(write_benchmark(tmp_path / "toy")), "runs/a", model="fake", limit=2)
    assert main(["draw", "--from", "runs/a/000000000012"]) == 0
    out = capsys.readouterr().out
    assert "same pixels as runs/a/images/000000000012.png" in out
    assert "drawn/000000000012: 1 images made" in out
