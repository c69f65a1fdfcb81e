from __future__ import annotations

import json
from pathlib import Path

import pytest

from instbench.cli.main import main
from instbench.datasets import catalog
from instbench.datasets.fetching import transfer
from tests.instbench.datasets.fetching.conftest import server as server
from tests.instbench.datasets.fetching.server import Server
from tests.instbench.datasets.fetching.world import image_name, offer
from tests.instbench.layouts.builders import annotation, captions, coco


@pytest.fixture
def home(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("coco-val2017", "lvis-v1-val"):
        monkeypatch.setitem(catalog.DATASETS, name, offer(server, name))
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_fetch_verify_prepare(
    home: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch = ["data", "fetch", "coco-val2017", "--mirror", server.address]
    assert main(fetch) == 0
    folder = home / "coco-val2017"
    assert capsys.readouterr().out == (
        f"{folder}: complete; 2 images, 2 annotations, 1 categories, 2 captions\n"
    )
    assert main(fetch) == 0
    assert "already complete" in capsys.readouterr().out
    assert main(["data", "verify", "coco-val2017"]) == 0
    assert capsys.readouterr().out == f"{folder}: 0 problems\n"
    assert main(["data", "prepare", "coco-val2017", "-o", str(tmp_path / "canvas")]) == 0
    assert "512x512; 2 images, 2 annotations, 0 crowds, 0 degenerate" in capsys.readouterr().out
    assert main(["data", "verify", str(tmp_path / "canvas"), "--quick"]) == 0
    assert "0 problems (names and sizes only)" in capsys.readouterr().out


def test_verify_lists_all_problems(home: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "lvis-v1-val", "--mirror", server.address]) == 0
    folder = home / "lvis-v1-val"
    (folder / "val2017" / image_name(2)).unlink()
    (folder / "new.txt").write_text("new")
    capsys.readouterr()
    assert main(["data", "verify", str(home)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: new.txt: is not in the manifest; move it elsewhere",
        f"{folder}: val2017/{image_name(2)}: is missing",
        f"{folder}: 2 problems",
    ]
    assert main(["data", "verify", "lvis-v1-val", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 2
    assert report["folders"][str(folder)][1] == {"path": f"val2017/{image_name(2)}", "message": "is missing"}


def test_output_names_another_home(home: Path, server: Server, tmp_path: Path) -> None:
    command = ["data", "fetch", "coco-val2017", "-o", str(tmp_path / "other"), "--mirror", server.address]
    assert main([*command, "--no-images", "--keep-archives"]) == 0
    assert (tmp_path / "other" / "coco-val2017" / "manifest.json").is_file()
    assert (tmp_path / "other" / "archives" / "annotations_trainval2017.zip").is_file()
    assert not home.exists()


def test_own_files_are_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(coco(annotation(1), annotation(2, bbox=[1, 1, 0, 0]))))
    (tmp_path / "c.json").write_text(json.dumps(captions("A cat.")))
    command = [
        "data",
        "prepare",
        "--annotations",
        str(tmp_path / "a.json"),
        "--captions",
        str(tmp_path / "c.json"),
    ]
    assert main([*command, "-o", str(tmp_path / "out"), "--size", "64"]) == 0
    assert "64x64; 1 images, 2 annotations, 0 crowds, 1 degenerate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "coco"], "unknown data set 'coco'"),
        (["verify", "nothing"], "nothing: no such folder"),
        (["verify", "coco-val2017"], "run `instbench data fetch coco-val2017`"),
        (["prepare", "-o", "x"], "give either the NAME of a data set or --annotations FILE"),
        (["prepare", "coco-val2017", "--annotations", "a", "-o", "x"], "give either the NAME"),
        (["prepare", "coco-val2017", "--captions", "c", "-o", "x"], "--captions: goes with --annotations"),
        (["prepare", "coco-val2017", "-o", "x"], "run `instbench data fetch coco-val2017`"),
        (["prepare", "coco-val2017", "--count", "3", "-o", "x"], "--count: is for shapes"),
        (["prepare", "shapes", "--images", "x", "-o", "x"], "--images: does not go with shapes"),
        (["prepare", "shapes", "--size", "64", "-o", "x"], "--size: shapes is rendered at its own size"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    home: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_interruption_says_how_to_go_on(
    home: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer._Transfer, "run", interrupt)
    assert main(["data", "fetch", "coco-val2017", "--mirror", server.address]) == 130
    assert "run the same command again" in capsys.readouterr().err
    monkeypatch.undo()
    assert not list(Path(home).glob(".lock"))
