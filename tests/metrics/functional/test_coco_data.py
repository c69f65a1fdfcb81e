from __future__ import annotations

import json
from pathlib import Path

import pytest

from metrics.functional.coco_data import load_detections, load_ground_truth
from tests.metrics.builders import annotation, detection, truth

GT = truth(annotation(1, (0, 0, 10, 10)), images=2)


def test_reads_files_and_keeps_order(tmp_path: Path) -> None:
    gt = truth(annotation(9, (0, 0, 5, 5)), annotation(4, (1, 1, 5, 5)), images=2)
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(gt))
    loaded = load_ground_truth(path)
    assert [entry["id"] for entry in loaded.annotations[1]] == [9, 4]
    assert loaded.annotations[2] == []
    assert loaded.categories[2] == "class 2"
    found = load_detections(
        [detection((0, 0, 5, 5), image=2), detection((0, 0, 4, 4))], loaded, image_ids=[1]
    )
    assert [(image, [d.index for d in entries]) for image, entries in found.items()] == [(1, [1])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "annotation 1: image_id 8 is not among the images"),
        ({"category_id": 8}, "annotation 1: category_id 8 is not among the categories"),
        ({"bbox": [1, 2, 3]}, "annotation 1: bbox .* is not"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 1: bbox .* not finite"),
        ({"id": "one"}, "id 'one' is not an integer"),
    ],
)
def test_bad_annotations(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_ground_truth(truth({**annotation(1, (0, 0, 10, 10)), **change}))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.json: cannot be read"):
        load_ground_truth(tmp_path / "missing.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    with pytest.raises(ValueError, match=r"broken\.json: is not complete JSON"):
        load_ground_truth(broken)
    with pytest.raises(ValueError, match="field 'categories' is missing"):
        load_ground_truth({"images": [], "annotations": []})
    with pytest.raises(ValueError, match="annotation id 1 occurs twice"):
        load_ground_truth(truth(annotation(1, (0, 0, 5, 5)), annotation(1, (0, 0, 5, 5))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "entry 0: score nan is not finite"),
        ({"score": None}, "entry 0: score None is not a number"),
        ({"score": "high"}, "entry 0: score 'high' is not a number"),
        ({"image_id": 77}, "entry 0: image_id 77 is not in the ground truth"),
        ({"bbox": None, "segmentation": None}, "entry 0: has neither bbox nor segmentation"),
        ({"category_id": 1.5}, "entry 0: category_id 1.5 is not an integer"),
    ],
)
def test_bad_detections(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_detections([{**detection((0, 0, 5, 5)), **change}], load_ground_truth(GT))
