from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from instbench.cli import validate
from instbench.errors import EXIT_BAD_INPUT, EXIT_DONE
from tests.instbench.layouts.builders import annotation, coco


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    validate.register(parser.add_subparsers())
    return validate.run(parser.parse_args(["validate", *arguments]))


def test_a_clean_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco(annotation(1))))
    assert _run(str(path)) == EXIT_DONE
    assert "0 errors, 0 warnings; 1 images, 1 annotations" in capsys.readouterr().out


def test_all_problems_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco(*(annotation(n, category_id=50) for n in range(120)))))
    assert _run(str(path)) == EXIT_BAD_INPUT
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 102
    assert lines[0] == (
        f"{path}: error: annotation 0: category_id: 50 is not in categories; add it there or remove this annotation"
    )
    assert lines[100] == "... and 20 more (--all shows them)"
    assert _run(str(path), "--all") == EXIT_BAD_INPUT
    assert len(capsys.readouterr().out.splitlines()) == 121


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco(annotation(1, bbox=[1, 1, 0, 2]))))
    assert _run(str(path), "--json") == EXIT_DONE
    report = json.loads(capsys.readouterr().out)
    assert (report["errors"], report["warnings"]) == (0, 1)
