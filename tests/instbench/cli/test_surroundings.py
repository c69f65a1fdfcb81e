"""The command line in odd surroundings: closed streams, other locales, a folder that is gone, odd names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instbench.cli import run as run_verb
from instbench.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        '"$PYTHON" -m instbench ls benchmarks >&-',
        '"$PYTHON" -m instbench ls benchmarks >&- 2>&- <&-',
        'env -u HOME LC_ALL=C "$PYTHON" -m instbench ls benchmarks',
        'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$PYTHON" -m instbench ls benchmarks',
        'mkdir gone && cd gone && rmdir ../gone && "$PYTHON" -m instbench ls benchmarks',
    ],
)
def test_odd_surroundings_do_not_matter(command, tmp_path):
    done = shell(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_standard_output_is_one_line(tmp_path):
    done = shell('"$PYTHON" -m instbench ls benchmarks > /dev/full', tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_current_folder_that_is_gone_is_said(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["run", "shapes-box.yaml", "-o", "out"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_that_are_no_text_are_one_line(monkeypatch, capsys):
    def fail(args):
        os.fsdecode(b"folder/\xff.json").encode()

    monkeypatch.setattr(run_verb, "run", fail)
    assert main(["run", "shapes-box", "-o", "x"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "xff" in said or "udcff" in said


@pytest.mark.parametrize("argument", ["", "--output="])
def test_an_empty_argument_is_not_this_folder(argument, capsys):
    assert main(["run", "shapes-box", "-o", "x", argument]) == 2
    assert "an argument is empty" in capsys.readouterr().err
