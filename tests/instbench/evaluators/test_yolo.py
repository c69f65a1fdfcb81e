from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from instbench.datasets.shapes import shapes_dataset
from instbench.errors import InputError
from instbench.evaluators import Detections, Detector, load_detector, shipped_folder
from instbench.evaluators.yolo import UltralyticsDetector
from instbench.evaluators.yolo_model import build_segmentation_model
from instbench.layouts import rle


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("shapes-yolo", device="cpu")


def _equal(left: Detections, right: Detections) -> bool:
    return (
        np.array_equal(left.boxes_xyxy, right.boxes_xyxy)
        and np.array_equal(left.scores, right.scores)
        and left.categories == right.categories
        and left.masks == right.masks
    )


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap))


def test_finds_the_objects_of_fresh_scenes(detector: Detector, pictures: list[Image.Image]) -> None:
    data = shapes_dataset("shapes", "val", 24)
    names = {c["id"]: c["name"] for c in data.annotations["categories"]}
    found = dict(zip(data.image_ids, detector.detect(pictures), strict=True))
    hits, mask_ious = [], []
    for annotation in data.annotations["annotations"]:
        x, y, w, h = annotation["bbox"]
        detections = found[annotation["image_id"]]
        best = None
        for number, (category, score) in enumerate(
            zip(detections.categories, detections.scores, strict=True)
        ):
            same = category == names[annotation["category_id"]] and score >= 0.3
            if same and _iou(detections.boxes_xyxy[number], np.array([x, y, x + w, y + h])) >= 0.5:
                best = number
                break
        hits.append(best is not None)
        if best is not None:
            assert detections.masks is not None
            size = annotation["segmentation"]["size"]
            truth = rle.decode(rle.from_coco_segmentation(annotation["segmentation"], size[0], size[1]))
            seen = rle.decode(detections.masks[best])
            mask_ious.append((truth & seen).sum() / (truth | seen).sum())
    assert np.mean(hits) >= 0.97
    assert np.mean(mask_ious) >= 0.85


def test_output_form(detector: Detector, pictures: list[Image.Image]) -> None:
    detections = detector.detect(pictures[:1])[0]
    assert detections.boxes_xyxy.dtype == np.float32
    assert detections.scores.dtype == np.float32
    assert detections.masks is not None
    assert len(detections) == len(detections.masks) == len(detections.scores) == len(detections.boxes_xyxy)
    assert np.all(np.diff(detections.scores) <= 0)
    assert detections.boxes_xyxy.min() >= 0
    assert detections.boxes_xyxy.max() <= 128
    assert set(detections.categories) <= set(detector.categories)
    assert {(mask.height, mask.width) for mask in detections.masks} == {(128, 128)}
    assert detector.detect([]) == []


def test_result_does_not_depend_on_the_batch(detector: Detector, pictures: list[Image.Image]) -> None:
    together = detector.detect(pictures[:7])
    alone = [detector.detect([picture])[0] for picture in pictures[:7]]
    backwards = detector.detect(pictures[:7][::-1])[::-1]
    assert all(_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(_equal(a, b) for a, b in zip(together, backwards, strict=True))


def test_larger_batches_agree_to_rounding(detector: Detector, pictures: list[Image.Image]) -> None:
    assert isinstance(detector, UltralyticsDetector)
    model = detector._model
    batched = UltralyticsDetector(model, detector.card, device="cpu", batch_size=4)
    for one, many in zip(detector.detect(pictures[:8]), batched.detect(pictures[:8]), strict=True):
        sure = int((one.scores > 0.3).sum())
        np.testing.assert_allclose(one.boxes_xyxy[:sure], many.boxes_xyxy[:sure], atol=1e-2)
        np.testing.assert_allclose(one.scores[:sure], many.scores[:sure], atol=1e-3)


def test_other_sizes_are_letterboxed_and_scaled_back(detector: Detector, pictures: list[Image.Image]) -> None:
    wide = pictures[0].crop((0, 16, 128, 112))
    padded = Image.new("RGB", (128, 128), (114, 114, 114))
    padded.paste(wide, (0, 16))
    large = wide.resize((256, 192), Image.Resampling.BICUBIC)
    of_wide, of_padded, of_large = detector.detect([wide, padded, large])
    sure = int((of_wide.scores > 0.5).sum())
    assert sure >= 1
    assert of_wide.categories[:sure] == of_padded.categories[:sure]
    np.testing.assert_allclose(
        of_wide.boxes_xyxy[:sure],
        np.clip(of_padded.boxes_xyxy[:sure] - [0, 16, 0, 16], 0, [128, 96, 128, 96]),
        atol=1e-3,
    )
    assert of_large.masks is not None
    assert {(mask.height, mask.width) for mask in of_large.masks} == {(192, 256)}
    nearest = [_iou(of_large.boxes_xyxy[0] / 2, box) for box in of_wide.boxes_xyxy[:sure]]
    assert max(nearest) > 0.85
    assert of_large.categories[0] == of_wide.categories[int(np.argmax(nearest))]
    rows, columns = np.nonzero(rle.decode(of_large.masks[0]))
    box = of_large.boxes_xyxy[0]
    assert columns.min() >= np.floor(box[0]) - 1
    assert rows.max() <= np.ceil(box[3]) + 1


def test_identity_names_weights_and_thresholds(detector: Detector) -> None:
    identity = detector.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["kind"] == "ultralytics-segment"
    assert (identity["iou"], identity["confidence"], identity["max_detections"]) == (0.7, 0.001, 300)
    assert all(len(value) == 64 for value in identity["sha256"].values())
    assert set(identity["sha256"]) == {"model.safetensors", "model.yaml"}


def test_refuses_pickles(tmp_path: Path) -> None:
    file = tmp_path / "yolov8m-seg.pt"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"yolov8m-seg\.pt.*pickle.*safetensors"):
        load_detector(file)
    with pytest.raises(InputError, match="pickle"):
        load_detector(tmp_path)


def test_refuses_architectures_that_run_code(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(shipped_folder("shapes-yolo"), folder)
    spec = yaml.safe_load((folder / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump({**spec, "activation": "__import__('os').getcwd()"}))
    with pytest.raises(InputError, match="activation"):
        load_detector(folder)
    spec["backbone"][0] = [-1, 1, "LOGGER", [64, 3, 2]]
    with pytest.raises(InputError, match="unknown module 'LOGGER'"):
        build_segmentation_model(spec, 3)
    spec["backbone"][0] = [-1, 1, "Conv", ["__import__('os')"]]
    with pytest.raises(InputError, match="layer 0: args"):
        build_segmentation_model(spec, 3)
    with pytest.raises(InputError, match="backbone and head are empty"):
        build_segmentation_model({"nc": 3}, 3)


def test_broken_folders_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shipped_folder("shapes-yolo"), folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.safetensors: truncated or damaged"):
        load_detector(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        load_detector(folder)
    card = json.loads((folder / "evaluator.json").read_text())
    (folder / "evaluator.json").write_text(json.dumps({**card, "iou": 7}))
    with pytest.raises(InputError, match=r"evaluator\.json: field iou"):
        load_detector(folder)
    (folder / "evaluator.json").write_text(json.dumps({**card, "categories": ["circle"]}))
    shutil.copy(shipped_folder("shapes-yolo") / "model.safetensors", folder)
    with pytest.raises(InputError, match="does not fit the network"):
        load_detector(folder)
