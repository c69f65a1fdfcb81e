"""Texts that would steer a terminal are written out, wherever they come from."""

from __future__ import annotations

import io
import json
import logging
import os

import pytest

from instbench.cli.console import PlainConsole
from instbench.cli.main import main
from instbench.text import visible

NAME = "\x1b]0;owned\x07\x1b[2J[/red]cat\u202e\x9b"
STEERING = "\x1b\x07\x9b\u202e"


def test_what_steers_is_written_out_and_the_rest_stays() -> None:
    assert visible("\x1b[31m\r\x9b\u202e\udcff") == r"\x1b[31m\r\x9b\u202e\udcff"
    assert visible("größer\n\tżółw 猫 🐈") == "größer\n\tżółw 猫 🐈"


def test_tables_neither_steer_nor_read_markup() -> None:
    from rich.table import Table

    stream = io.StringIO()
    table = Table("model")
    table.add_row(NAME)
    console = PlainConsole(file=stream, width=80)
    console.print(table)
    console.print(NAME)
    assert not set(stream.getvalue()) & set(STEERING)
    assert stream.getvalue().count("[/red]cat") == 2


@pytest.fixture
def data(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 48, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 0, 20], "area": 0}],
        "categories": [{"id": 1, "name": NAME}],
    }
    path = tmp_path / os.fsdecode(b"in\x1b[2J\xff.json")
    path.write_text(json.dumps(content))
    return path


def test_files_with_steering_names(data, capsys) -> None:
    assert main(["validate", str(data)]) == 0
    assert main(["validate", str(data), "--images", str(data.parent / NAME)]) == 2
    assert main(["score", str(data)]) == 2
    assert main(["run", f"shapes-box{NAME}", "-o", str(data.parent / "run")]) == 2
    assert main(["run", "shapes-box", "--limit", NAME, "-o", str(data.parent / "run")]) == 2
    out, err = capsys.readouterr()
    assert not set(out + err) & set(STEERING)
    assert r"\x1b[2J" in out
    assert len(err.splitlines()) == 4


def test_logged_names_do_not_steer(capsys) -> None:
    assert main(["ls", "benchmarks"]) == 0  # sets the logging up
    logging.getLogger("instbench.test").warning("%s", NAME)
    assert not set(capsys.readouterr().err) & set(STEERING)
