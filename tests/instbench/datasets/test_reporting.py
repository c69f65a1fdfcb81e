from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from instbench.datasets.reporting import validate_file
from instbench.errors import InputError
from instbench.layouts import from_coco, write_jsonl
from tests.instbench.datasets.fetching.world import lvis_content
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
    Image.new("RGB", (80, 60)).save(tmp_path / "1.png")
    report = validate_file(path, captions=texts, images_dir=tmp_path)
    assert [str(finding.problem) for finding in report.findings] == [
        "captions: 1 images have no caption (2); names are used",
        "image 2: file_name: 2.png is not there; the ceiling and FID need it",
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


def test_damaged_and_wrong_images_are_errors(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", coco(annotation(1), images=6))
    Image.effect_noise((80, 60), 50).save(tmp_path / "1.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").write_bytes(b"<html>")
    Image.new("RGB", (60, 80)).save(tmp_path / "4.png")
    # A header of 60000 x 60000 pixels: refused before anything is decoded.
    (tmp_path / "5.png").write_bytes(whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:])
    images = tmp_path / "images"
    images.mkdir()
    for number in range(1, 6):
        (tmp_path / f"{number}.png").rename(images / f"{number}.png")
    (images / "6.png").symlink_to(path)
    report = validate_file(path, images_dir=images)
    found = {
        f"{finding.problem.severity} {finding.problem}".split(" file_name: ")[1]
        for finding in report.findings
    }
    assert report.errors == 5
    assert any(text.startswith("2.png cannot be read as an image") for text in found)
    assert any(text.startswith("3.png cannot be read as an image") for text in found)
    assert "4.png is 60x80, but the annotations say 80x60" in found
    assert any(
        text.startswith("5.png ") and ("60000x60000" in text or "cannot be read" in text) for text in found
    )
    assert "6.png leads out of the folder; remove the link" in found


def test_results_are_checked_alone_and_against_annotations(tmp_path: Path) -> None:
    truth = _write(tmp_path / "a.json", coco(annotation(1)))
    good = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    path = _write(tmp_path / "r.json", [good, good | {"score": float("nan")}, good | {"image_id": 9}])
    alone = validate_file(path)
    assert [str(finding.problem) for finding in alone.findings] == [
        "detection at position 1: score: must be a finite number, not nan; fix the detector or remove this detection"
    ]
    assert alone.counts == {"detections": 3, "images": 2}
    both = validate_file(path, annotations=truth)
    assert both.errors == 2
    assert str(both.findings[1].problem).startswith("detection at position 2: image_id: 9 is not in images")
    with pytest.raises(InputError, match="--captions goes with an instances file"):
        validate_file(path, captions=truth)
    with pytest.raises(InputError, match="--annotations goes with a list of detections"):
        validate_file(truth, annotations=truth)


def test_lvis_files_are_checked_as_such(tmp_path: Path) -> None:
    data = lvis_content()
    assert validate_file(_write(tmp_path / "a.json", data)).findings == ()
    data["images"][0]["neg_category_ids"] = [2, 99, 1]
    data["images"][1]["not_exhaustive_category_ids"] = None
    data["categories"][0]["frequency"] = "often"
    report = validate_file(_write(tmp_path / "b.json", data))
    assert [str(finding.problem) for finding in report.findings] == [
        "category 1: frequency: must be r, c or f, not 'often'",
        "image 2: neg_category_ids: 99 is not in categories; add it there or remove it here",
        "image 3: not_exhaustive_category_ids: must be a list of category ids, not None",
        "annotation 1: category_id: 1 is in neg_category_ids of image 2; remove one of the two",
    ]
