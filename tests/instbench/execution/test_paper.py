"""The paper edition through the stages, with stand-ins for the networks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from instbench import api
from instbench.errors import InputError
from instbench.execution.look import jpeg_copy
from metrics import points_in_mask
from tests.instbench.fakes import FakeDetector, FakeGenerator, write_benchmark, write_coco


def paper(folder, metrics, **changes) -> str:
    fields = {
        "edition": "paper",
        "conditions": ["box", "point"],
        "square_source": 512,
        "file_format": "jpeg-q75",
        "metrics": [{"name": name} for name in metrics],
        "deviations": ["jpeg-q75", "pim-greedy"],
        **changes,
    }
    return str(write_benchmark(folder, name="toy-paper", **fields))


def add_annotations(folder, annotations) -> None:
    path = folder / "instances.json"
    data = json.loads(path.read_text())
    data["annotations"] += annotations
    path.write_text(json.dumps(data))


def region(identifier, image_id, x, y, side, *, category=1, crowd=0) -> dict:
    segmentation = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    if crowd:
        mask = np.zeros((48, 96), dtype=int)
        mask[y : y + side, x : x + side] = 1
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(np.diff(flat)) + 1
        segmentation = {"size": [48, 96], "counts": np.diff([0, *changes, flat.size]).tolist()}
    return {
        "id": identifier,
        "image_id": image_id,
        "category_id": category,
        "bbox": [x, y, side, side],
        "segmentation": segmentation,
        "area": side * side,
        "iscrowd": crowd,
    }


def test_jpeg_is_what_a_saved_file_would_show(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "a.jpg")  # PIL's default quality is the published one
    with Image.open(tmp_path / "a.jpg") as stored:
        assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(jpeg_copy(image)))
    assert not np.array_equal(np.asarray(jpeg_copy(image)), noise)


def test_evaluators_see_the_jpeg_and_the_run_keeps_the_png(tmp_path, fakes):
    class Watches(FakeDetector):
        def detect(self, images):
            self.last = [np.asarray(image) for image in images]
            return super().detect(images)

    fakes.detector = Watches(threshold=60)
    name = paper(tmp_path, ["pim_point"])
    api.run(name, tmp_path / "run", model="fake", edition="paper")
    stored = sorted((tmp_path / "run" / "images").glob("*.png"))
    for path, seen in zip(stored, fakes.detector.last, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(jpeg_copy(image.convert("RGB"))), seen)
            assert not np.array_equal(np.asarray(image), seen)


def test_crowds_condition_the_model_and_are_scored_by_points_in_mask(tmp_path, fakes):
    write_coco(tmp_path, images=2)
    add_annotations(tmp_path, [region(900, 11, 2, 30, 16, crowd=1)])
    fakes.detector = FakeDetector(threshold=60)
    name = paper(tmp_path, ["box_ap50", "pim_point"])
    [outcome] = api.run(name, tmp_path / "run", model="fake", edition="paper")
    asked = {request.layout.image_id: len(request.layout.instances) for request in fakes.generator.requests}
    assert asked == {11: 3, 12: 2}
    shown = fakes.generator.requests[0].layout.instances[-1]
    assert shown.is_crowd
    assert shown.box_xyxy is not None
    assert shown.mask is None
    assert outcome.results is not None
    ap, pim = (outcome.results.metrics[one] for one in ("box_ap50", "pim_point"))
    assert (ap.n_scored, ap.reasons) == (4, {"crowd region, which AP ignores": 1})
    assert (pim.value, pim.n_scored, pim.n_unscored) == (1.0, 5, 0)
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert len(rows) == 5


def test_only_thirty_are_shown_and_all_are_in_prompt_and_ground_truth(tmp_path, fakes):
    write_coco(tmp_path, images=1)
    add_annotations(tmp_path, [region(800 + n, 11, 2 * n, 40, 2) for n in range(31)])
    name = paper(tmp_path, ["box_ap50"])
    [outcome] = api.run(name, tmp_path / "run", model="fake", edition="paper")
    [request] = fakes.generator.requests
    assert len(request.layout.instances) == 30
    assert request.layout.caption == "A cat and a dog." + ", ".join(["cat", "dog", *["cat"] * 31])
    assert outcome.results is not None
    assert outcome.results.metrics["box_ap50"].n_scored == 33
    assert outcome.results.counts["instances_requested"] == 33


def test_points_in_mask_is_blind_to_class_and_drops_what_is_not_matched(tmp_path, fakes):
    class Swaps(FakeGenerator):
        """Draws each object in the colour of the other category, and image 12 not at all."""

        def draw(self, request):
            image = super().draw(request)
            if request.layout.image_id == 12:
                return Image.new("RGB", image.size, (120, 120, 120))
            pixels = np.asarray(image).copy()
            cat, dog = (pixels == (200, 40, 40)).all(2), (pixels == (40, 160, 60)).all(2)
            pixels[cat], pixels[dog] = (40, 160, 60), (200, 40, 40)
            return Image.fromarray(pixels)

    write_coco(tmp_path, images=2)
    fakes.generator, fakes.detector = Swaps(), FakeDetector(threshold=60)
    name = paper(tmp_path, ["pim_point", "pim_scribble", "box_ap50"])
    [outcome] = api.run(name, tmp_path / "run", model="fake", edition="paper")
    assert outcome.results is not None
    records = outcome.results.metrics
    assert records["box_ap50"].value == 0.0
    point = records["pim_point"]
    assert (point.value, point.n_scored, point.n_unscored) == (1.0, 2, 2)
    assert point.reasons == {"no predicted mask left": 2}
    assert point.details["n_images"] == 1
    assert 0.9 < records["pim_scribble"].value <= 1.0


def test_scribble_points_are_drawn_from_the_runs_seed(tmp_path, fakes):
    class Half(FakeGenerator):
        """Draws the left half of each object, so that the drawn points decide the score."""

        def draw(self, request):
            pixels = np.asarray(super().draw(request)).copy()
            for column in (slice(9, 18), slice(33, 42)):
                pixels[:, column] = 120
            return Image.fromarray(pixels)

    write_coco(tmp_path, images=4)
    fakes.generator, fakes.detector = Half(), FakeDetector(threshold=60)
    name = paper(tmp_path, ["pim_scribble"])
    values = {}
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        [outcome] = api.run(name, tmp_path / folder, model="fake", edition="paper", seed=seed)
        assert outcome.results is not None
        values[folder] = outcome.results.metrics["pim_scribble"].value
    assert values["a"] == values["b"] != values["c"]
    assert 0.2 < values["a"] < 0.8
    np.random.seed(0)
    [again] = api.score(tmp_path / "a")
    assert again.results is not None
    assert again.results.metrics["pim_scribble"].value == values["a"]


def test_the_number_is_that_of_the_pure_function(tmp_path, fakes):
    write_coco(tmp_path, images=3)
    fakes.detector = FakeDetector(threshold=60)
    [outcome] = api.run(paper(tmp_path, ["pim_point"]), tmp_path / "run", model="fake", edition="paper")
    from instbench.execution.matching import coco_results
    from instbench.execution.observe import read_detections
    from instbench.layouts import canvas_ground_truth, read_jsonl
    from instbench.runs.store import RunFolder

    layouts = read_jsonl(tmp_path / "run" / "layouts.jsonl")
    seen = read_detections(RunFolder(tmp_path / "run"))
    results = [
        one
        for layout in layouts
        for one in coco_results(seen[layout.image_key], layout.image_id, {"cat": 1, "dog": 2})
    ]
    expected = points_in_mask(canvas_ground_truth(layouts, 48), results, "point", edition="paper")
    assert outcome.results is not None
    assert outcome.results.metrics["pim_point"].value == expected.value


def test_attributes_are_read_from_the_asked_boxes_drawn_or_not(tmp_path, fakes):
    class OnlyCats(FakeGenerator):
        def draw(self, request):
            pixels = np.asarray(super().draw(request)).copy()
            pixels[(pixels == (40, 160, 60)).all(2)] = 20  # black where a dog should be
            return Image.fromarray(pixels)

    write_coco(tmp_path, images=2)
    # A thin box that no pixel of the canvas belongs to, and a crowd.
    thin = {**region(901, 12, 60, 10, 2), "bbox": [60, 10, 0.4, 20]}
    add_annotations(tmp_path, [region(900, 11, 2, 30, 16, crowd=1), thin])
    fakes.generator, fakes.detector = OnlyCats(), FakeDetector(threshold=60)
    name = paper(
        tmp_path,
        ["color_accuracy_paper", "color_clip_score_paper"],
        attribute="color",
        evaluators={"image_text": "fake"},
    )
    [outcome] = api.run(name, tmp_path / "run", model="fake", edition="paper", limit=2)
    assert outcome.results is not None
    accuracy, similarity = outcome.results.metrics.values()
    assert (accuracy.n_scored, accuracy.n_unscored) == (similarity.n_scored, similarity.n_unscored) == (5, 1)
    assert accuracy.reasons == {"beyond the first 30 annotations, or its crop is empty": 1}
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet").set_index("annotation_id")
    seen = rows["color_seen"].dropna()
    assert set(seen.index) == {110, 111, 120, 121, 900}
    category = rows["category"][seen.index]
    assert set(seen[category == "cat"]) == {"red"}
    assert set(seen[category == "dog"]) == {"black"}  # what lies in the box, though no dog is found there
    asked = rows["asked_color"]
    expected = np.mean(
        [
            np.mean([seen[i] == asked[i] for i in seen.index if rows["image_id"][i] == image])
            for image in (11, 12)
        ]
    )
    assert accuracy.value == pytest.approx(expected)
    crops = pd.read_parquet(tmp_path / "run" / "observations" / "crops.parquet")
    assert similarity.value == pytest.approx(np.mean([np.mean(one) for one in crops["phrase_scores"]]))
    assert similarity.details["n_images"] == 2
    made = len(fakes.generator.made)
    [again] = api.score(tmp_path / "run")
    assert again.results == outcome.results
    assert len(fakes.generator.made) == made


def test_crops_are_cut_as_published():
    from instbench.execution.crops import asked_crops
    from instbench.layouts import from_coco

    image = Image.new("RGB", (48, 48), (255, 255, 255))
    records = {
        "images": [{"id": 1, "width": 96, "height": 96}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [region(n, 1, 4 * n, 10, 20) | {"image_id": 1} for n in range(1, 33)],
    }
    records["annotations"][0]["bbox"] = [5, 5, 11, 90]  # 2.5, 2.5, 8.0, 47.5: halves go to the even side
    records["annotations"][1]["bbox"] = [80, 80, 40, 40]  # beyond the image
    (layout,) = from_coco(records, edition="paper", attribute="color")
    crops = asked_crops(layout, image, "color")
    assert [instance.annotation_id for instance, _ in crops] == list(range(1, 31))
    assert crops[0][1].size == (6, 46)
    assert crops[1][1].size == (20, 20)
    assert crops[1][1].getpixel((19, 19)) == (0, 0, 0)
    assert asked_crops(layout, image, "texture") == []


@pytest.mark.parametrize(
    ("metrics", "edition", "message"),
    [
        (["point_hit_rate"], "paper", "metric point_hit_rate belongs to the strict edition"),
        (["fid"], "paper", "metric fid belongs to the strict edition"),
        (["pim_point"], "strict", "metric pim_point belongs to the paper edition"),
    ],
)
def test_metrics_stay_in_their_edition(tmp_path, fakes, metrics, edition, message):
    changes = (
        {"deviations": []}
        if edition == "paper"
        else {"deviations": [], "square_source": None, "file_format": "png"}
    )
    name = paper(tmp_path, metrics, edition=edition, **changes)
    with pytest.raises(InputError, match=message):
        api.run(name, tmp_path / "run", model="fake", edition=edition)


def test_boxes_alone_leave_points_in_mask_unscored(tmp_path, fakes):
    write_coco(tmp_path, images=2)
    add_annotations(tmp_path, [{**region(900, 11, 2, 30, 6), "segmentation": []}])
    fakes.detector = FakeDetector(threshold=60)
    [outcome] = api.run(paper(tmp_path, ["pim_point"]), tmp_path / "run", model="fake", edition="paper")
    assert outcome.results is not None
    record = outcome.results.metrics["pim_point"]
    assert (record.n_scored, record.reasons) == (4, {"the annotation has no mask": 1})
