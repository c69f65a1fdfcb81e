from __future__ import annotations

import json

import pytest

import metrics
from instbench import api
from instbench.statistics.store import read_samples
from tests.instbench.fakes import FakeDetector, write_benchmark, write_coco

NAMES = ("lvis_box_ap", "lvis_box_apr", "lvis_mask_ap")


def lvis(folder) -> str:
    """Two categories: cats are rare, dogs frequent; image 12 was searched for cats in vain."""
    path = write_coco(folder, images=3)
    data = json.loads(path.read_text())
    data["annotations"] = [one for one in data["annotations"] if one["id"] != 121]  # the cat of image 12
    for image in data["images"]:
        image["neg_category_ids"] = [1] if image["id"] == 12 else []
        image["not_exhaustive_category_ids"] = [2] if image["id"] == 13 else []
    for category, frequency in zip(data["categories"], "rf", strict=True):
        category["frequency"] = frequency
    path.write_text(json.dumps(data))
    return str(write_benchmark(folder, metrics=[{"name": name} for name in NAMES], prompt="names"))


def test_the_truth_says_where_categories_were_searched_for(tmp_path, fakes, monkeypatch):
    calls = []
    evaluate = metrics.evaluate_lvis_average_precision

    def record(truth, detections, iou_type):
        calls.append((truth, iou_type))
        return evaluate(truth, detections, iou_type)

    monkeypatch.setattr(metrics, "evaluate_lvis_average_precision", record, raising=False)
    [outcome] = api.run(lvis(tmp_path), tmp_path / "run", model="fake")
    assert [kind for _, kind in calls] == ["bbox", "segm"]
    truth = calls[0][0]
    assert {one["id"]: one["neg_category_ids"] for one in truth["images"]} == {11: [], 12: [1], 13: []}
    assert {one["id"]: one["not_exhaustive_category_ids"] for one in truth["images"]} == {
        11: [],
        12: [],
        13: [2],
    }
    assert {one["name"]: one["frequency"] for one in truth["categories"]} == {"cat": "r", "dog": "f"}
    assert outcome.results is not None
    box, rare, mask = outcome.results.metrics.values()
    assert (box.value, box.n_scored, box.n_unscored) == (pytest.approx(1.0), 5, 0)
    assert rare.value == mask.value == pytest.approx(1.0)
    assert (rare.n_scored, rare.n_unscored) == (2, 3)
    assert rare.reasons == {"a category of another frequency": 3}
    for record in (box, rare, mask):
        assert record.ci95 is not None
        assert record.ci95[0] < record.value == record.ci95[1]
    samples = read_samples(tmp_path / "run" / "samples.npz").metrics
    assert {name: one.value() for name, one in samples.items()} == pytest.approx(dict.fromkeys(NAMES, 1.0))


def test_a_category_that_is_surely_absent_counts_against_the_model(tmp_path, fakes):
    class CatsEverywhere(FakeDetector):
        def detect(self, images):
            from dataclasses import replace

            return [replace(seen, categories=("cat",) * len(seen)) for seen in super().detect(images)]

    fakes.detector = CatsEverywhere()
    [outcome] = api.run(lvis(tmp_path), tmp_path / "run", model="fake")
    assert outcome.results is not None
    box = outcome.results.metrics["lvis_box_ap"]
    assert box.value is not None
    assert box.value < 0.6
    assert box.n_scored == 5


def test_without_masks_or_federated_fields_there_is_no_number(tmp_path, fakes):
    class BoxesOnly(FakeDetector):
        def detect(self, images):
            from dataclasses import replace

            return [replace(seen, masks=None) for seen in super().detect(images)]

    fakes.detector = BoxesOnly()
    name = lvis(tmp_path / "a")
    [outcome] = api.run(name, tmp_path / "boxes", model="fake")
    assert outcome.results is not None
    mask = outcome.results.metrics["lvis_mask_ap"]
    assert (mask.value, mask.n_unscored, mask.reasons) == (None, 5, {"the detector gives no masks": 5})
    plain = write_coco(tmp_path / "plain", images=2)
    [outcome] = api.run(name, tmp_path / "plain-run", model="fake", annotations=plain)
    assert outcome.results is not None
    box = outcome.results.metrics["lvis_box_ap"]
    assert (box.value, box.n_scored) == (None, 0)
    assert list(box.reasons) == [
        "the data say of no image which categories were searched for; give LVIS annotations"
    ]


@pytest.mark.parametrize("name", ["lvis-box", "lvis-mask"])
def test_the_benchmarks_look_for_any_category(name):
    from instbench.benchmarks import load_benchmark

    benchmark = load_benchmark(name)
    assert benchmark.evaluators.detector == "owlv2"
    assert (benchmark.prompt, benchmark.canvas_size) == ("names", 512)
