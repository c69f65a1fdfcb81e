from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from instbench.cli import run as run_verb
from instbench.cli.main import VERBS, main

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "diffusers", "transformers", "ultralytics", "open_clip"}:
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Blocker())
from instbench.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["ls"], ["ls", "metrics"]]
)
def test_help_and_lists_do_not_load_networks(arguments):
    answer = subprocess.run([sys.executable, "-c", BLOCKER, *arguments], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert "usage: instbench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "shapes-bax", "-o", "x"], "unknown benchmark 'shapes-bax'; did you mean shapes-box"),
        (
            ["run", "shapes-box", "--model", "referense", "-o", "x"],
            "'referense'; did you mean reference?",
        ),
        (["run", "shapes-real", "--edition", "paper", "-o", "x"], "shapes-real has no edition 'paper'"),
        (["run", "shapes-box", "--captions", "c.json", "-o", "x"], "belong to --annotations"),
        (["run", "shapes-box", "--annotations", "no.json", "-o", "x"], "no.json"),
        (["run", "shapes-real", "--model", "reference", "-o", "x"], "takes only --model real-images"),
        (["run", "shapes-box", "shapes-box", "-o", "x"], "named twice"),
        (["run", "shapes-box", "--model", "json:nothing", "-o", "x"], "no attribute 'nothing'"),
        (
            ["run", "shapes-box", "--model", "no_such:f", "--limit", "2", "-o", "x"],
            "no module named 'no_such'",
        ),
        (["run", "no/such.yaml", "-o", "x"], "no such benchmark file"),
        (["score", "nowhere"], "no run here"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_is_named(tmp_path, monkeypatch, capsys, fakes):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "shapes-box", "--checkpoint", "gone", "-o", "x"]) == 2
    assert "--checkpoint gone: no such file or folder" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main(["run", "shapes-box", "--model", "fake", "--checkpoint", "there", "-o", "x"]) == 2
    assert "takes no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--limit", "0"), ("--batch-size", "many"), ("--alpha", "2"), ("--mis", "x")]
)
def test_bad_numbers_are_refused_by_the_parser(capsys, option, value):
    assert main(["run", "shapes-box", "-o", "x", option, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: argument {option}: ")
    assert error.endswith("see `instbench run --help`\n")
    assert error.count("\n") == 1


def test_a_missing_or_unknown_verb_is_one_line(capsys):
    for arguments in ([], ["nope"], ["run"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to continue"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/disk/run.json"),
            2,
            "no space left at /disk/run.json",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            2,
            "/root/x: Permission denied; check",
        ),
        (RuntimeError("two\nlines"), 1, "RuntimeError: two lines"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, message):
    def fail(args):
        raise error

    monkeypatch.setattr(run_verb, "run", fail)
    assert main(["run", "shapes-box", "-o", "x"]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_ls_as_json(capsys):
    assert main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"shapes-box", "shapes-real", "shapes-hard-point"} <= set(listed["benchmarks"])
    assert set(listed["models"]) >= {"reference", "text-only", "real-images", "image-folder"}
    assert "box_ap50" in listed["metrics"]
