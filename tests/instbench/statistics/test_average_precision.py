"""AP of resamples against COCOeval on the resampled images themselves."""

import numpy as np
import pytest

from instbench.statistics.average_precision import AP_NUMBERS, ApSamples
from metrics import coco_average_precision
from metrics.functional.match_table import match_table

IMAGES = 12


def _pair(seed):
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 10 + i, "width": 200, "height": 200} for i in range(IMAGES)],
        "categories": [{"id": 3, "name": "a"}, {"id": 5, "name": "b"}],
        "annotations": [],
    }
    found = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = (*rng.uniform(0, 80, 2), *rng.uniform(8, 110, 2))
            number = len(truth["annotations"]) + 1
            category = int(rng.choice([3, 5]))
            truth["annotations"].append(
                {
                    "id": number,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 4)):
                dx, dy = rng.normal(0, 5, 2)
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": category if rng.random() < 0.8 else int(rng.choice([3, 5])),
                        "bbox": [x + dx, y + dy, w * rng.uniform(0.7, 1.3), h * rng.uniform(0.7, 1.3)],
                        "score": float(rng.uniform(0, 1)),
                    }
                )
    return truth, found


def _drawn(truth, found, counts):
    """The data set in which an image stands as often as it was drawn, copies side by side."""
    images, annotations, detections = [], [], []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(int(count)):
            new = len(images) + 1
            images.append({**image, "id": new})
            for one in truth["annotations"]:
                if one["image_id"] == image["id"]:
                    annotations.append({**one, "id": len(annotations) + 1, "image_id": new})
            detections += [{**one, "image_id": new} for one in found if one["image_id"] == image["id"]]
    return {**truth, "images": images, "annotations": annotations}, detections


COCO_NAMES = {name: name.upper() for name in AP_NUMBERS}


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_cocoeval_on_the_images_as_they_are_and_on_resamples(seed):
    truth, found = _pair(seed)
    table = match_table(truth, found)
    rng = np.random.default_rng(100 + seed)
    weights = np.stack([np.ones(IMAGES), *(rng.multinomial(IMAGES, [1 / IMAGES] * IMAGES) for _ in range(4))])
    for counts in weights:
        expected = coco_average_precision(*_drawn(truth, found, counts), "bbox")
        for number in AP_NUMBERS:
            ours = ApSamples(table, number).resampled(counts[None].astype(np.float32))[0]
            theirs = expected[number]
            assert np.isnan(ours) if theirs < 0 else ours == pytest.approx(theirs, abs=1e-9), number


def test_nothing_found_is_zero_and_nothing_asked_is_no_number():
    truth, _ = _pair(0)
    assert ApSamples(match_table(truth, []), "ap").value() == 0
    assert ApSamples(match_table({**truth, "annotations": []}, []), "ap").value() is None


def test_the_engines_give_the_same_table(monkeypatch):
    truth, found = _pair(3)
    fast = match_table(truth, found)
    monkeypatch.setattr("metrics.functional.ap_engines.find_spec", lambda name: None)
    slow = match_table(truth, found)
    for name in ("images", "categories", "ranks", "matched", "truth_counts"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name)), name
