from __future__ import annotations

from pathlib import Path

import pytest

from reference_model.training.__main__ import PARTS, main


def test_help_lists_every_part(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(part in output for part in PARTS)


def test_bad_input_ends_with_code_2(tmp_path: Path):
    assert main([]) == 2
    assert main(["nonsense"]) == 2
    assert main(["tokenizer", "--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 2


def test_parts_are_dispatched(training_folder: Path, tmp_path: Path):
    assert main(["tokenizer", "--data", str(training_folder), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()
