from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from metrics import coco_average_precision, evaluate_average_precision
from metrics.functional import ap_engines
from metrics.functional.average_precision import COCO_STATS
from tests.metrics.builders import annotation, detection, perfect, random_pair, truth

FIXTURES = Path(__file__).parents[1] / "fixtures"


def reference(gt: dict, detections: list[dict], iou_type: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(gt)
        coco.createIndex()
        results = COCO()
        results.dataset = {**copy.deepcopy(gt), "annotations": []}
        results.createIndex()
        evaluation = COCOeval(
            coco, coco.loadRes(copy.deepcopy(detections)) if detections else results, iou_type
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def assert_equal(gt: dict, detections: list[dict], iou_type: str) -> None:
    expected = reference(gt, detections, iou_type)
    arrays = {}
    for engine in ("auto", "hotcoco", "pycocotools"):
        ours = coco_average_precision(gt, detections, iou_type, engine=engine)
        assert list(ours) == list(COCO_STATS)
        np.testing.assert_allclose(list(ours.values()), expected, rtol=0, atol=1e-12, err_msg=engine)
        arrays[engine] = evaluate_average_precision(gt, detections, iou_type, engine=engine)
    for name in ("precision", "recall"):
        slow, fast = (getattr(arrays[engine], name) for engine in ("pycocotools", "hotcoco"))
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    assert arrays["hotcoco"].values.keys() == arrays["pycocotools"].values.keys()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), crowds=st.booleans(), categories=st.sampled_from([1, 3]))
def test_equals_cocoeval(seed: int, crowds: bool, categories: int) -> None:
    gt, detections = random_pair(seed, crowds=crowds, categories=categories)
    for iou_type in ("bbox", "segm"):
        assert_equal(gt, detections, iou_type)


def test_equals_cocoeval_beyond_100_detections_and_without_boxes() -> None:
    gt, detections = random_pair(3, crowded=True)
    assert_equal(gt, detections, "bbox")
    masks_only = [{key: value for key, value in entry.items() if key != "bbox"} for entry in detections]
    assert_equal(gt, masks_only, "segm")
    assert_equal(gt, masks_only, "bbox")
    boxes_only = [
        {key: value for key, value in entry.items() if key != "segmentation"} for entry in detections
    ]
    assert_equal(gt, boxes_only, "segm")


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_equals_recorded_stats(iou_type: str) -> None:
    expected = json.loads((FIXTURES / "paper_expected.json").read_text())[iou_type]
    ours = coco_average_precision(FIXTURES / "paper_gt.json", FIXTURES / "paper_detections.json", iou_type)
    np.testing.assert_allclose(list(ours.values()), expected, rtol=0, atol=1e-9)


def test_perfect_detections_and_none() -> None:
    gt = truth(annotation(1, (2, 3, 20, 10)), annotation(2, (30, 5, 12, 20), category=2))
    assert coco_average_precision(gt, perfect(gt))["ap"] == pytest.approx(1.0)
    nothing = evaluate_average_precision(gt, [])
    assert (nothing.values["ap"], nothing.values["ar100"]) == (0.0, 0.0)
    assert (nothing.n_scored, nothing.n_unscored) == (2, 0)
    assert nothing.values["ap_large"] is None
    assert coco_average_precision(gt, [])["ap_large"] == -1


def test_half_of_the_instances_found() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (30, 20, 10, 10)))
    result = evaluate_average_precision(gt, [detection((0, 0, 10, 10))])
    # Precision 1 up to recall 0.5: 51 of the 101 recall levels.
    assert result.values["ap"] == pytest.approx(51 / 101)
    assert result.values["ar100"] == pytest.approx(0.5)
    assert result.per_category["class 1"].ap == pytest.approx(51 / 101)
    assert result.per_category["class 1"].n_scored == 2
    assert result.per_category["class 2"].ap is None
    gt["categories"][1]["name"] = "class 1"
    names = list(evaluate_average_precision(gt, []).per_category)
    assert names == ["class 1 (id 1)", "class 1 (id 2)", "class 3"]


@pytest.mark.parametrize("flag", [{"iscrowd": 1}, {"ignore": 1, "ignore_reason": "over-cap"}])
def test_ignore_regions_neither_help_nor_harm(flag: dict) -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (30, 20, 10, 10), **flag))
    inside = detection((31, 21, 5, 5), score=1.0)
    result = evaluate_average_precision(gt, [detection((0, 0, 10, 10), score=0.5), inside])
    assert result.values["ap"] == pytest.approx(1.0)
    assert (result.n_scored, result.n_unscored) == (1, 1)
    assert result.reasons == {flag.get("ignore_reason", "crowd"): 1}
    elsewhere = evaluate_average_precision(
        gt, [detection((0, 0, 10, 10), 0.5), detection((31, 2, 5, 5), 1.0)]
    )
    assert elsewhere.values["ap"] == pytest.approx(0.5)


def test_annotation_without_mask_is_not_scored_for_masks() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (30, 20, 10, 10), segmentation=None))
    result = evaluate_average_precision(gt, perfect({"annotations": gt["annotations"][:1]}), "segm")
    assert result.values["ap"] == pytest.approx(1.0)
    assert result.reasons == {"no mask": 1}


def test_image_ids_select_and_may_be_empty() -> None:
    gt = truth(annotation(1, (0, 0, 10, 10)), annotation(2, (0, 0, 10, 10), image=2), images=2)
    found = [detection((0, 0, 10, 10))]
    assert coco_average_precision(gt, found, image_ids=[1])["ap"] == pytest.approx(1.0)
    assert coco_average_precision(gt, found, image_ids=[2])["ap"] == 0.0
    nothing = evaluate_average_precision(gt, found, image_ids=[])
    assert (nothing.values["ap"], nothing.n_scored, nothing.n_unscored) == (None, 0, 0)
    with pytest.raises(ValueError, match="image_ids: 7"):
        coco_average_precision(gt, found, image_ids=[7])


def test_input_is_left_alone_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    gt, detections = random_pair(5)
    before = copy.deepcopy((gt, detections))
    coco_average_precision(gt, detections, "segm")
    assert (gt, detections) == before
    assert capsys.readouterr().out == ""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_equals_cocoeval_on_odd_boxes_orders_and_ids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, detections = random_pair(seed)
    for entry in [*gt["annotations"], *detections]:
        kind = rng.random()
        if kind < 0.1:
            entry["bbox"] = [*entry["bbox"][:2], 0, 0]
        elif kind < 0.2:  # partly outside the image
            entry["bbox"] = [entry["bbox"][0] - 30, entry["bbox"][1] + 25, *entry["bbox"][2:]]
        elif kind < 0.3:
            entry["bbox"] = [value + 0.25 for value in entry["bbox"]]
    for entry in gt["annotations"]:
        entry["area"] *= float(rng.choice([0.1, 1.0, 30.0]))
        if rng.random() < 0.2:
            x, y, w, h = 2, 3, 20, 9
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h], [x, y, x + 4, y, x, y + 4]]
        if rng.random() < 0.1:
            runs = [100, 300, 40 * 60 - 400]
            entry["segmentation"] = {"size": [40, 60], "counts": runs}
    if rng.random() < 0.2:  # pycocotools takes the id 0 for "no match"
        for entry in gt["annotations"]:
            entry["id"] -= 1
    if rng.random() < 0.2 and detections:
        detections.append({**detections[0], "category_id": 77})
    detections = [detections[index] for index in rng.permutation(len(detections))]
    gt["annotations"] = [gt["annotations"][index] for index in rng.permutation(len(gt["annotations"]))]
    for iou_type in ("bbox", "segm"):
        assert_equal(gt, detections, iou_type)


def test_equals_cocoeval_on_some_of_the_images() -> None:
    gt, detections = random_pair(11, images=4)
    ids = {2, 4}
    part = {**gt, "images": [entry for entry in gt["images"] if entry["id"] in ids]}
    part["annotations"] = [entry for entry in gt["annotations"] if entry["image_id"] in ids]
    expected = reference(part, [entry for entry in detections if entry["image_id"] in ids], "segm")
    ours = coco_average_precision(gt, detections, "segm", image_ids=ids)
    np.testing.assert_allclose(list(ours.values()), expected, rtol=0, atol=1e-12)


def test_without_the_fast_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    gt, detections = random_pair(5)
    expected = coco_average_precision(gt, detections)
    monkeypatch.setattr(ap_engines, "find_spec", lambda name: None)
    assert coco_average_precision(gt, detections) == expected
    with pytest.raises(ValueError, match="'hotcoco' is not installed; install it or use 'pycocotools'"):
        coco_average_precision(gt, detections, engine="hotcoco")
    monkeypatch.undo()
    (tmp_path / "hotcoco.py").write_text("raise ImportError('made for another machine')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hotcoco", raising=False)
    with caplog.at_level(logging.DEBUG, logger="metrics"):
        assert coco_average_precision(gt, detections) == expected
    assert "hotcoco cannot be loaded" in caplog.text

    def panics(*_: object) -> None:
        raise BaseException("index out of bounds")

    monkeypatch.setattr(ap_engines, "hotcoco_engine", panics)
    assert coco_average_precision(gt, detections) == expected
    assert "hotcoco failed (index out of bounds)" in caplog.text


def test_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ap_engines, "_ENGINES", dict(ap_engines._ENGINES))
    ap_engines.register_engine("again", ap_engines.pycocotools_engine)
    gt, detections = random_pair(1)
    assert coco_average_precision(gt, detections, engine="again") == coco_average_precision(gt, detections)
    with pytest.raises(ValueError, match="taken"):
        ap_engines.register_engine("again", ap_engines.pycocotools_engine)
    with pytest.raises(
        ValueError, match="engine: 'fast' is unknown; use one of again, auto, hotcoco, pycocotools"
    ):
        coco_average_precision(gt, detections, engine="fast")
    with pytest.raises(ValueError, match="iou_type"):
        coco_average_precision(gt, detections, "keypoints")  # type: ignore[arg-type]
