from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lvis.eval import LVISEval
from lvis.lvis import LVIS
from lvis.results import LVISResults

from metrics import LvisAveragePrecision, evaluate_lvis_average_precision, lvis_average_precision
from metrics.functional.lvis_average_precision import LVIS_STATS
from tests.metrics.builders import annotation, detection, perfect, random_box, random_pair, truth


class _InMemory(LVIS):
    def _load_json(self, path: Any) -> Any:
        return path


def reference(gt: dict, detections: list[dict], iou_type: str) -> dict[str, float]:
    gt = copy.deepcopy(gt)
    for entry in gt["annotations"]:
        entry["ignore"] = int(bool(entry.get("ignore") or entry.get("iscrowd")))
    # The package still says np.float, which numpy has dropped.
    missing = not hasattr(np, "float")
    if missing:
        np.float = float  # type: ignore[attr-defined]
    logging.disable(logging.CRITICAL)
    try:
        coco = _InMemory(gt)
        evaluation = LVISEval(coco, LVISResults(coco, copy.deepcopy(detections)), iou_type)
        evaluation.run()
    finally:
        logging.disable(logging.NOTSET)
        if missing:
            del np.float  # type: ignore[attr-defined]
    return dict(evaluation.results)


def federated(gt: dict, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in gt["categories"]]
    for category in gt["categories"]:
        category["frequency"] = str(rng.choice(["r", "c", "f"]))
    for image in gt["images"]:
        present = {one["category_id"] for one in gt["annotations"] if one["image_id"] == image["id"]}
        image["neg_category_ids"] = [one for one in ids if one not in present and rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [one for one in ids if one in present and rng.random() < 0.4]
    for one in gt["annotations"]:
        one["area"] *= float(rng.choice([0.2, 1.0, 20.0]))
    return gt


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), crowded=st.booleans())
def test_equals_the_lvis_api(seed: int, crowded: bool) -> None:
    gt, detections = random_pair(seed, images=4, categories=4, crowded=crowded)
    rng = np.random.default_rng(seed)
    if crowded:  # more than 300 in one image
        detections += [
            detection(random_box(rng), round(float(rng.random()), 1), int(rng.integers(1, 5)), 1)
            for _ in range(250)
        ]
    for one in [*gt["annotations"], *detections]:
        if rng.random() < 0.1:  # without area: the LVIS API leaves it out
            one["bbox"] = [*one["bbox"][:2], 0, one["bbox"][3]]
            one["area"] = 0.0
    if rng.random() < 0.2:
        for one in gt["annotations"]:
            one["id"] -= 1  # the id 0 stands for "no match"
    if rng.random() < 0.3:
        for one in gt["annotations"]:
            one["ignore"] = int(rng.random() < 0.3)
    detections = [detections[index] for index in rng.permutation(len(detections))]
    gt = federated(gt, seed)
    if not detections:
        return
    for iou_type in ("bbox", "segm"):
        ours = lvis_average_precision(gt, detections, iou_type)
        expected = reference(gt, detections, iou_type)
        assert set(ours) == set(expected) == set(LVIS_STATS)
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_areas_on_the_border_of_two_ranges_equal_the_lvis_api() -> None:
    """In the LVIS API an object of exactly 32 x 32 is small and medium; so is a detection without an answer."""
    gt = federated(truth(annotation(1, (0, 0, 32, 32)), annotation(2, (0, 0, 8, 8), image=2), images=2), 0)
    for one, area in zip(gt["annotations"], (32.0**2, 96.0**2), strict=True):
        one["area"] = area
    found = [
        detection((0, 0, 32, 32), 0.5),
        detection((20, 4, 32, 32), 0.9),
        detection((0, 0, 8, 8), image=2),
    ]
    ours = lvis_average_precision(gt, found)
    assert ours == pytest.approx(reference(gt, found, "bbox"), abs=1e-12)
    assert min(ours["APs"], ours["APm"], ours["APl"]) >= 0


def test_masks_alone_equal_the_lvis_api() -> None:
    gt, detections = random_pair(4, images=4)
    gt = federated(gt, 4)
    alone = [{key: value for key, value in one.items() if key != "bbox"} for one in detections]
    expected = reference(gt, alone, "segm")
    ours = lvis_average_precision(gt, alone, "segm")
    assert ours == pytest.approx(expected, abs=1e-12)


def test_only_looked_for_categories_count() -> None:
    gt = truth(annotation(1, (2, 2, 10, 10)), images=2)
    for category in gt["categories"]:
        category["frequency"] = "f"
    for image in gt["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    right = perfect(gt, 0.9)
    elsewhere = detection((0, 0, 5, 5), 1.0, category=1, image=2)
    result = evaluate_lvis_average_precision(gt, [elsewhere, *right])
    assert (result.values["AP"], result.n_unjudged, result.n_detections) == (pytest.approx(1.0), 1, 1)
    assert result.values["APr"] is None
    assert result.per_category == {"class 1": pytest.approx(1.0), "class 2": None, "class 3": None}
    gt["images"][1]["neg_category_ids"] = [1]
    result = evaluate_lvis_average_precision(gt, [elsewhere, *right])
    assert (result.values["AP"], result.n_unjudged) == (pytest.approx(0.5), 0)


def test_without_detections() -> None:
    gt = federated(truth(annotation(1, (2, 2, 10, 10))), 0)
    result = evaluate_lvis_average_precision(gt, [])
    assert (result.values["AP"], result.values["AR@300"], result.n_scored) == (0.0, 0.0, 1)


def test_missing_federated_fields_are_named() -> None:
    gt = federated(truth(annotation(1, (2, 2, 10, 10))), 0)
    broken = copy.deepcopy(gt)
    del broken["images"][0]["neg_category_ids"]
    with pytest.raises(ValueError, match="image 1: field 'neg_category_ids' is missing; give the LVIS"):
        lvis_average_precision(broken, [])
    broken = copy.deepcopy(gt)
    broken["categories"][1]["frequency"] = "x"
    with pytest.raises(ValueError, match="category 2: frequency 'x' is not r, c or f"):
        lvis_average_precision(broken, [])
    with pytest.raises(ValueError, match="iou_type: 'keypoints' is unknown"):
        lvis_average_precision(gt, [], "keypoints")  # type: ignore[arg-type]


def test_the_metric_gathers_images_in_any_order() -> None:
    gt, detections = random_pair(8, images=4)
    gt = federated(gt, 8)
    parts = [LvisAveragePrecision(gt["categories"], "segm") for _ in range(2)]
    for number, image in enumerate(reversed(gt["images"])):
        own = (
            [one for one in entries if one["image_id"] == image["id"]]
            for entries in (gt["annotations"], detections)
        )
        parts[number % 2].update(image, *own)
    parts[0].merge_state(parts[1])
    values = {name: float(value) for name, value in parts[0].compute().items()}
    expected = evaluate_lvis_average_precision(gt, detections, "segm").values
    assert values == pytest.approx(
        {name: float("nan") if value is None else value for name, value in expected.items()}, nan_ok=True
    )
    with pytest.raises(ValueError, match="annotation of image 1 given with image 2; update image by image"):
        parts[0].update(gt["images"][1], [annotation(1, (0, 0, 3, 3))], [])
