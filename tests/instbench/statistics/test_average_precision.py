"""AP of resamples against COCOeval and LVISEval on the resampled images themselves."""

from dataclasses import replace

import numpy as np
import pytest

from instbench.statistics.average_precision import AP_NUMBERS, ApSamples
from instbench.statistics.intervals import interval
from instbench.statistics.resampling import Resamples, draw_resamples
from instbench.statistics.samples import RatioSamples, pool_repeats
from metrics import coco_average_precision, evaluate_average_precision, evaluate_lvis_average_precision
from metrics.functional import ap_engines
from tests.metrics.functional.test_lvis_average_precision import federated, reference

IMAGES = 12


def _pair(seed, categories=(3, 5)):
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 10 + i, "width": 200, "height": 200} for i in range(IMAGES)],
        "categories": [{"id": one, "name": f"class {one}"} for one in categories],
        "annotations": [],
    }
    found = []
    for image in truth["images"]:
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = (*rng.uniform(0, 80, 2), *rng.uniform(8, 110, 2))
            number = len(truth["annotations"]) + 1
            category = int(rng.choice(categories))
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
                        "category_id": category if rng.random() < 0.8 else int(rng.choice(categories)),
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


COCO = [name for name in AP_NUMBERS if name.islower()]
LVIS = [name for name in AP_NUMBERS if not name.islower()]


def _matches(truth, found, engine="auto"):
    table = evaluate_average_precision(truth, found, engine=engine).matches
    assert table is not None
    return table


def _weights(seed):
    rng = np.random.default_rng(100 + seed)
    drawn = (rng.multinomial(IMAGES, [1 / IMAGES] * IMAGES) for _ in range(4))
    return np.stack([np.ones(IMAGES), *drawn]).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_cocoeval_on_the_images_as_they_are_and_on_resamples(seed):
    truth, found = _pair(seed)
    table = _matches(truth, found)
    for counts in _weights(seed):
        resamples = Resamples(counts[None])
        expected = coco_average_precision(*_drawn(truth, found, counts), "bbox")
        for number in COCO:
            ours = ApSamples(table, number).resampled(resamples)[0]
            theirs = expected[number]
            assert np.isnan(ours) if theirs < 0 else ours == pytest.approx(theirs, abs=1e-9), number


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_lvis_api_on_the_images_as_they_are_and_on_resamples(seed):
    truth, found = _pair(seed, categories=(3, 5, 8, 9))
    truth["images"].reverse()  # ties and columns must not hang on the order of the file
    for category, frequency in zip(federated(truth, seed)["categories"], "rcfr", strict=True):
        category["frequency"] = frequency
    result = evaluate_lvis_average_precision(truth, found)
    for number in LVIS:
        value = ApSamples(result.matches, number).value()
        assert value == pytest.approx(result.values[number], abs=1e-9), number
    for counts in _weights(seed):
        resamples = Resamples(counts[None])
        expected = reference(*_drawn(truth, found, counts), "bbox")
        assert set(expected) == set(LVIS)
        for number, theirs in expected.items():
            ours = ApSamples(result.matches, number).resampled(resamples)[0]
            assert np.isnan(ours) if theirs < 0 else ours == pytest.approx(theirs, abs=1e-9), number


def test_repeats_of_an_image_are_drawn_together():
    (truth, found), rng = _pair(1), np.random.default_rng(7)
    repeats = [found, [{**one, "score": float(rng.random())} for one in found]]
    pooled = pool_repeats([ApSamples(_matches(truth, one), "ap") for one in repeats])
    for counts in _weights(1):
        expected = [coco_average_precision(*_drawn(truth, one, counts), "bbox")["ap"] for one in repeats]
        assert expected[0] != expected[1]
        assert Resamples(counts[None]).of(pooled)[0] == pytest.approx(np.mean(expected), abs=1e-9)


def test_equal_scores_stand_in_the_order_of_image_ids():
    truth, found = _pair(2)
    truth["images"].reverse()
    for one in found:
        one["score"] = round(one["score"], 1)
    expected = coco_average_precision(truth, found, "bbox")
    for number in COCO:
        assert ApSamples(_matches(truth, found), number).value() == pytest.approx(expected[number], abs=1e-9)


def test_nothing_found_is_zero_and_nothing_asked_is_no_number():
    truth, _ = _pair(0)
    assert ApSamples(_matches(truth, []), "ap").value() == 0
    assert ApSamples(_matches({**truth, "annotations": []}, []), "ap").value() is None


def test_an_image_tells_as_much_as_its_share_of_each_category():
    truth, _ = _pair(0)
    box = {"bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}
    places = [(10, 3)] * 3 + [(11, 3)] + [(12, 5)]  # images and categories of five objects
    truth["annotations"] = [
        {**box, "id": number, "image_id": image, "category_id": category}
        for number, (image, category) in enumerate(places, 1)
    ]
    table = _matches(truth, [])
    shares = np.array([3 / 4, 1 / 4, 1.0])
    assert ApSamples(table, "ap").units() == pytest.approx(shares.sum() ** 2 / np.square(shares).sum())
    assert ApSamples(table, "ap_large").units() == 0
    assert interval(ApSamples(table, "ap_large")) is None
    low, high = interval(ApSamples(table, "ap"))
    assert low == 0
    assert 0.5 < high < 1
    lvis = replace(table, frequencies=np.array(["r", "f"]))
    assert ApSamples(lvis, "APr").units() == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert ApSamples(lvis, "APf").units() == 1
    assert interval(ApSamples(lvis, "APf")) is None  # all of its objects are in one image


def test_the_standard_error_of_recall_is_that_of_a_mean_over_images():
    """Recall is a mean over objects: what resamples say of it must agree with the jackknife, at few images too."""
    truth, _ = _pair(0, categories=(3,))
    box = {"bbox": [0.0, 0.0, 60.0, 60.0], "area": 3600.0, "iscrowd": 0, "category_id": 3}
    truth["annotations"] = [
        {**box, "id": number, "image_id": one["id"]} for number, one in enumerate(truth["images"], 1)
    ]
    found = [
        {"image_id": 10 + place, "category_id": 3, "bbox": [0.0, 0.0, 60.0, side], "score": 0.9}
        for place, side in enumerate((60.0, 34.0, 40.0, 52.0, 57.0))
    ]
    recall = ApSamples(_matches(truth, found), "ar100")
    shares = np.array([1.0, 0.2, 0.4, 0.8, 1.0] + [0.0] * 7)
    mean = RatioSamples(shares, np.ones(IMAGES))
    assert recall.value() == pytest.approx(mean.value())
    ends = interval(recall, draw_resamples(IMAGES, 20_000))
    assert ends == pytest.approx(interval(mean), rel=0.01)


def test_the_engines_give_the_same_table():
    truth, found = _pair(3)
    fast, slow = (_matches(truth, found, engine) for engine in ("hotcoco", "pycocotools"))
    for name in ("images", "categories", "ranks", "matched", "truth_counts"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name)), name


def test_an_engine_that_does_not_tell_who_matched_gives_no_table(monkeypatch):
    truth, found = _pair(3)

    def silent(pair, iou_type):
        return replace(ap_engines.automatic_engine(pair, iou_type), evaluated=None)

    monkeypatch.setitem(ap_engines._ENGINES, "silent", silent)
    assert evaluate_average_precision(truth, found, engine="silent").matches is None
