from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instbench.datasets.reporting import validate_file
from instbench.errors import InputError
from instbench.layouts import from_coco, write_jsonl
from tests.instbench.layouts.builders import annotation, captions, coco, crowd


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_errors_come_first_and_records_are_counted(tmp_path: Path) -> None:
    data = coco(annotation(1, bbox=[1, 1, 0, 0]), crowd(2), annotation(3, category_id=4))
    report = validate_file(_write(tmp_path / "a.json", data))
    assert [str(finding.problem.severity) for finding in report.findings] == ["error", "warning"]
    assert (report.errors, report.warnings) == (1, 1)
    assert report.counts == {"images": 1, "annotations": 3, "categories": 2, "crowds": 1, "degenerate": 1}
    assert report.to_json()["problems"][0]["where"] == "annotation 3: category_id"


def test_captions_and_images_are_compared(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", coco(annotation(1), images=2))
    texts = _write(tmp_path / "c.json", captions("A cat."))
    (tmp_path / "1.png").write_bytes(b"")
    report = validate_file(path, captions=texts, images_dir=tmp_path)
    assert [str(finding.problem) for finding in report.findings] == [
        "captions: 1 images have no caption (2); names are used",
        "image 2: file_name: 2.png is not there",
    ]
    with pytest.raises(InputError, match="no such folder"):
        validate_file(path, images_dir=tmp_path / "none")


def test_captions_and_layouts_files_are_recognised(tmp_path: Path) -> None:
    texts = _write(tmp_path / "c.json", captions("A cat.", " "))
    assert validate_file(texts).warnings == 1
    with pytest.raises(InputError, match="--images goes with an instances file"):
        validate_file(texts, images_dir=tmp_path)
    layouts = tmp_path / "layouts.jsonl"
    write_jsonl(from_coco(coco(annotation(1), crowd(2))), layouts)
    assert validate_file(layouts).counts == {"layouts": 1, "instances": 2, "requested": 1}
    layouts.write_text('{"schema_version": 1}\n')
    report = validate_file(layouts)
    assert str(report.findings[0].problem).startswith("line 1: ")
    assert report.errors == 1
    with pytest.raises(InputError, match="no such file"):
        validate_file(tmp_path / "none.jsonl")
