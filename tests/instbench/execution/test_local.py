from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageDraw

from instbench import api
from instbench.errors import InputError
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.layouts.rle import decode, encode
from instbench.registry import GENERATORS, Entry
from instbench.runs import atomic
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder
from tests.instbench.fakes import PALETTE, FakeDetector, FakeGenerator, write_benchmark, write_coco


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


def files(folder: Path) -> dict[str, bytes]:
    """Everything of a run that must not depend on how it came about."""
    kept = [*folder.glob("images/*.png"), folder / "results.json", folder / "layouts.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_a_perfect_model_scores_one_everywhere(toy, tmp_path, fakes):
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.results is not None
    values = {name: record.value for name, record in outcome.results.metrics.items()}
    assert values["box_ap50"] == values["mask_iou"] == values["point_hit_rate"] == pytest.approx(1.0)
    assert 0.0 <= values["fid"] < 0.1
    assert outcome.results.metrics_asked == list(values)
    assert all(record.n_unscored == 0 for record in outcome.results.metrics.values())
    record = RunFolder(tmp_path / "run").read_run()
    assert record.status == "success"
    assert set(record.timings) == {"plan", "generate", "observe", "score"}
    assert record.settings_resolved["num_inference_steps"] == 3
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert len(rows) == 10
    assert rows["hit"].all()
    assert set(rows["failure"]) == {"correct"}
    log = RunFolder(tmp_path / "run").read_image_log()
    assert len(log) == 5
    assert all(entry["info"] == {"calls": 1} for entry in log.values())


def test_an_interrupted_run_continues_and_ends_the_same(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "whole", model="fake")
    all_made = list(fakes.generator.made)
    fakes.generator = FakeGenerator(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, tmp_path / "cut", model="fake", session=Session(batch_size=2))
    run = RunFolder(tmp_path / "cut")
    assert run.read_run().status == "started"
    assert not run.results_json.exists()
    assert not (run.root / ".lock").exists()
    assert len(list(run.images.iterdir())) == 2
    fakes.generator = FakeGenerator()
    [outcome] = api.run(toy, tmp_path / "cut", model="fake")
    assert fakes.generator.made == all_made[2:]
    assert (outcome.made, outcome.kept) == (3, 2)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_an_interrupted_observation_continues(toy, tmp_path, fakes, monkeypatch):
    monkeypatch.setattr("instbench.defaults.OBSERVE_CHUNK", 2)

    class Stops(FakeDetector):
        def detect(self, images):
            if self.seen >= 2:
                raise KeyboardInterrupt
            return super().detect(images)

    import instbench.execution.observe as observe

    original = observe.observe_images
    monkeypatch.setattr(
        "instbench.execution.local.observe_images", lambda *args, **kw: original(*args, **kw, chunk=2)
    )
    fakes.detector = Stops()
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, tmp_path / "run", model="fake")
    fakes.detector = FakeDetector()
    made = len(fakes.generator.made)
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert fakes.detector.seen == 3
    assert len(fakes.generator.made) == made
    assert outcome.results is not None
    api.run(toy, tmp_path / "whole", model="fake")
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_a_finished_run_makes_and_observes_nothing_again(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    before = files(tmp_path / "run")
    made, seen = len(fakes.generator.made), fakes.detector.seen
    api.run(toy, tmp_path / "run", model="fake")
    assert (len(fakes.generator.made), fakes.detector.seen) == (made, seen)
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("batch_size", [1, 2, "auto"])
def test_results_do_not_depend_on_the_batch(toy, tmp_path, fakes, batch_size):
    api.run(toy, tmp_path / "a", model="fake", session=Session(batch_size=3))
    api.run(toy, tmp_path / "b", model="fake", session=Session(batch_size=batch_size))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_generate_then_run_is_the_same_as_run(toy, tmp_path, fakes):
    [first] = api.generate(toy, tmp_path / "a", model="fake")
    assert first.results is None
    assert RunFolder(tmp_path / "a").read_run().status == "started"
    [second] = api.run(toy, tmp_path / "a", model="fake")
    assert (second.made, second.kept) == (0, 5)
    api.run(toy, tmp_path / "b", model="fake")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_identity_is_refused_and_every_difference_named(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    before = files(tmp_path / "run")
    steps = SamplingSettings(num_inference_steps=9)
    with pytest.raises(InputError) as caught:
        api.run(toy, tmp_path / "run", model="fake", seed=5, sampling=steps)
    message = str(caught.value)
    assert "sampling.num_inference_steps (3 there, 9 now); seed (0 there, 5 now)" in message
    assert "--fresh" in message
    assert files(tmp_path / "run") == before
    [outcome] = api.run(toy, tmp_path / "run", model="fake", seed=5, sampling=steps, fresh=True)
    assert outcome.made == 5
    assert files(tmp_path / "run") != before


def test_a_folder_with_something_else_is_left_alone(toy, tmp_path, fakes):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for fresh in (False, True):
        with pytest.raises(InputError, match=r"thesis\.tex"):
            api.run(toy, tmp_path / "mine", model="fake", fresh=fresh)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_full_disk_leaves_nothing_half_written_and_the_run_continues(toy, tmp_path, fakes, monkeypatch):
    real_fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        api.run(toy, tmp_path / "run", model="fake")
    monkeypatch.undo()
    run = RunFolder(tmp_path / "run")
    assert all(run.has_image(path.stem, 48) for path in run.images.glob("*.png"))
    assert not list(run.root.rglob(".tmp-*"))
    assert not (run.root / ".lock").exists()
    api.run(toy, tmp_path / "run", model="fake")
    api.run(toy, tmp_path / "whole", model="fake")
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_failed_images_are_counted_apart_and_tried_again(toy, tmp_path, fakes):
    class Picky(FakeGenerator):
        broken = True

        def draw(self, request):
            if self.broken and request.layout.image_key.endswith("13"):
                raise ValueError("no")
            return super().draw(request)

    fakes.generator = Picky()
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.failed == ("000000000013",)
    assert outcome.results is not None
    hits = outcome.results.metrics["point_hit_rate"]
    # What was not drawn is missed: it stays in the denominator.
    assert (hits.value, hits.n_scored, hits.n_unscored, hits.reasons) == (0.8, 10, 0, {})
    assert outcome.results.counts["images_missing"] == 1
    assert outcome.results.metrics["fid"].reasons == {"no image": 1}
    assert outcome.results.metrics["fid"].n_unscored == 1
    assert RunFolder(tmp_path / "run").read_run().status == "error"
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert (rows["failure"] == "missing").sum() == (~rows["hit"]).sum() == 2
    fakes.generator.broken = False
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert (outcome.made, outcome.failed) == (1, ())
    assert RunFolder(tmp_path / "run").read_run().status == "success"


def test_score_observes_again_only_what_changed(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    before = files(tmp_path / "run")
    seen = fakes.detector.seen
    [outcome] = api.score(tmp_path / "run")
    assert fakes.detector.seen == seen
    assert files(tmp_path / "run") == before
    fakes.detector = FakeDetector(threshold=13)
    [outcome] = api.score(tmp_path, session=Session())
    assert fakes.detector.seen == 5
    identity = RunFolder(tmp_path / "run").read_run().identity
    assert identity["evaluators"]["detector"]["threshold"] == 13
    (tmp_path / "run" / "images" / "000000000012.png").unlink()
    [outcome] = api.score(tmp_path / "run")
    assert outcome.results is not None
    assert outcome.results.counts["images_missing"] == 1
    assert outcome.failed == ("000000000012",)


def test_altered_layouts_are_refused_by_score(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    path = tmp_path / "run" / "layouts.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(InputError, match="altered since the run"):
        api.score(tmp_path / "run")


def test_own_data_takes_the_place_of_the_benchmarks(toy, tmp_path, fakes):
    annotations = write_coco(tmp_path / "own", images=3, categories=("cat", "zebra"))
    [outcome] = api.run(toy, tmp_path / "run", model="fake", annotations=annotations)
    assert outcome.results is not None
    assert outcome.results.benchmark == "toy-box@custom"
    hits = outcome.results.metrics["point_hit_rate"]
    assert (hits.value, hits.n_scored, hits.n_unscored) == (1.0, 3, 3)
    assert hits.reasons == {"category unknown to the detector": 3}
    assert hits.details["unknown_categories"] == ["zebra"]
    assert outcome.results.metrics["box_ap50"].reasons == hits.reasons
    fid = outcome.results.metrics["fid"]
    assert fid.value is None
    assert fid.reasons == {"no real images to compare with; give --images": 3}
    identity = RunFolder(tmp_path / "run").read_run().identity
    assert identity["dataset"]["annotations_sha256"] == atomic.sha256_file(annotations)
    images = tmp_path / "own" / "real"
    [outcome] = api.run(toy, tmp_path / "run2", model="fake", annotations=annotations, images=images)
    assert outcome.results is not None
    assert outcome.results.metrics["fid"].value is not None


def test_attributes_are_seen_on_found_objects(tmp_path, fakes):
    metrics = [{"name": "color_accuracy"}]
    toy = str(write_benchmark(tmp_path, attribute="color", metrics=metrics, conditions=["mask", "box"]))
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.results is not None
    record = outcome.results.metrics["color_accuracy"]
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    # The fake paints cats red and dogs green, whatever colour is asked for.
    assert set(rows["color_seen"]) == {"red", "green"}
    right = (rows["color_seen"] == rows["asked_color"]).mean()
    assert record.value == pytest.approx(right)
    assert rows["failure"].isin(["wrong attribute", "leaked attribute"]).mean() == pytest.approx(1 - right)
    assert rows["color_correct"].mean() == pytest.approx(right)
    leaked = rows["failure"] == "leaked attribute"
    assert (rows["leaked_from"].notna() == leaked).all()
    counts = outcome.results.failures.counts
    assert counts["leaked attribute"] == leaked.sum()
    assert sum(counts.values()) == 10
    assert (tmp_path / "run" / "observations" / "crops.parquet").exists()


def test_missing_objects_are_wrong_and_named(tmp_path, fakes):
    class Empty(FakeGenerator):
        def draw(self, request):
            return super().draw(request).point(lambda value: 90)

    fakes.generator = Empty()
    toy = str(write_benchmark(tmp_path, metrics=[{"name": "point_hit_rate"}, {"name": "mask_iou"}]))
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.results is not None
    assert [record.value for record in outcome.results.metrics.values()] == [0.0, 0.0]
    assert [record.n_scored for record in outcome.results.metrics.values()] == [10, 10]
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert set(rows["failure"]) == {"missing"}
    failures = outcome.results.failures
    assert failures.counts["missing"] == 10
    assert (failures.ap50, failures.ap50_gains["missing"]) == (0.0, pytest.approx(1.0))
    assert not rows["found"].any()


def test_several_benchmarks_get_a_folder_each(tmp_path, fakes):
    first = str(write_benchmark(tmp_path, name="toy-a"))
    second = str(write_benchmark(tmp_path, name="toy-b"))
    outcomes = api.run([first, second], tmp_path / "runs", model="fake", limit=2)
    assert [one.folder.name for one in outcomes] == ["toy-a", "toy-b"]
    assert [path.name for path in api.find_runs(tmp_path / "runs")] == ["toy-a", "toy-b"]
    images = [(one.folder / "images" / "000000000011.png").read_bytes() for one in outcomes]
    assert images[0] != images[1]  # another benchmark, another seed


def test_unknown_metrics_and_parameters_are_refused_before_images_are_made(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path, metrics=[{"name": "box_ap5"}]))
    with pytest.raises(InputError, match=r"unknown metric 'box_ap5'; did you mean .*box_ap50"):
        api.run(toy, tmp_path / "run", model="fake")
    toy = str(write_benchmark(tmp_path, metrics=[{"name": "mask_iou", "params": {"threshold": 1}}]))
    with pytest.raises(InputError, match=r"metric mask_iou: params: .*'threshold'"):
        api.run(toy, tmp_path / "run", model="fake")
    assert fakes.generator.made == []


def test_a_model_that_cannot_see_the_condition_is_refused(toy, tmp_path, fakes):
    class TextAndMask(FakeGenerator):
        conditions = frozenset({"mask"})

    GENERATORS.add(Entry("mask-only", "", TextAndMask))
    try:
        with pytest.raises(InputError, match="'mask-only' cannot be shown box"):
            api.run(toy, tmp_path / "run", model="mask-only")
    finally:
        GENERATORS.remove("mask-only")


def test_an_error_is_left_in_the_record(toy, tmp_path, fakes):
    fakes.generator = FakeGenerator(stop_after=0, error=ValueError("broken model"))
    with pytest.raises(ValueError, match="broken model"):
        api.run(toy, tmp_path / "run", model="fake")
    record = RunRecord.model_validate(json.loads((tmp_path / "run" / "run.json").read_text()))
    assert (record.status, record.error) == ("error", "ValueError: broken model")


def test_other_real_images_are_another_run(toy, tmp_path, fakes):
    own = {"annotations": write_coco(tmp_path / "own"), "images": tmp_path / "own" / "real"}
    api.run(toy, tmp_path / "run", model="fake", **own)
    api.run(toy, tmp_path / "run", model="fake", **own)
    picture = tmp_path / "own" / "real" / "12.png"
    Image.new("RGB", (96, 48)).save(picture)
    with pytest.raises(InputError, match=r"dataset\.images_sha256"):
        api.run(toy, tmp_path / "run", model="fake", **own)
    picture.unlink()
    with pytest.raises(InputError, match=r"dataset\.images_sha256"):
        api.run(toy, tmp_path / "run", model="fake", **own)
    [outcome] = api.run(toy, tmp_path / "run2", model="fake", **own)
    assert outcome.results is not None
    assert outcome.results.metrics["fid"].reasons == {"a real image is missing or unreadable": 5}


def test_score_finds_the_real_images_from_another_folder(toy, tmp_path, fakes, monkeypatch):
    write_coco(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    api.run(toy, "run", model="fake", annotations="own/instances.json", images="own/real")
    before = files(tmp_path / "run")
    monkeypatch.chdir("/")
    [outcome] = api.score(tmp_path / "run", session=Session())
    assert outcome.results is not None
    assert outcome.results.metrics["fid"].value is not None
    assert files(tmp_path / "run") == before


def test_generate_on_a_finished_run_leaves_it_finished(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    api.generate(toy, tmp_path / "run", model="fake")
    run = RunFolder(tmp_path / "run")
    assert run.read_run().status == "success"
    (run.images / "000000000012.png").unlink()
    api.generate(toy, tmp_path / "run", model="fake")
    assert run.read_run().status == "started"


def test_score_of_a_damaged_record_is_one_line(toy, tmp_path, fakes):
    api.run(toy, tmp_path / "run", model="fake")
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    record["benchmark"]["canvas_size"] = "large"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run\.json: field canvas_size: .*make the run again"):
        api.score(tmp_path / "run")


def test_all_folders_are_checked_before_the_first_image(tmp_path, fakes):
    names = [str(write_benchmark(tmp_path, name=name)) for name in ("toy-a", "toy-b")]
    (tmp_path / "runs" / "toy-b").mkdir(parents=True)
    (tmp_path / "runs" / "toy-b" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        api.run(names, tmp_path / "runs", model="fake")
    assert fakes.generator.made == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mis": 1.0}, r"--mis 1\.0: "),
        ({"guidance_scale": float("nan")}, "--guidance-scale nan: "),
        ({"num_inference_steps": 0}, "--num-inference-steps 0: "),
    ],
)
def test_sampling_settings_out_of_range_are_refused_before_networks_load(
    toy, tmp_path, fakes, settings, message
):
    with pytest.raises(InputError, match=message):
        api.run(toy, tmp_path / "run", model="fake", sampling=SamplingSettings(**settings))
    assert not (tmp_path / "run").exists()


def test_an_object_on_the_point_is_no_failure_whatever_its_size(tmp_path, fakes):
    class Small(FakeGenerator):
        """Draws a dot on each asked point: far too small for the annotated box."""

        def draw(self, request):
            image = super().draw(request)
            pen = ImageDraw.Draw(image)
            for one in request.layout.instances:
                x, y = (int(value * request.canvas_size) for value in one.point_xy)
                pen.rectangle((x, y, x, y), fill=PALETTE[one.category])
            return image

    fakes.generator = Small()
    metrics = [{"name": "point_hit_rate"}]
    toy = str(write_benchmark(tmp_path, conditions=["point"], metrics=metrics))
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.results is not None
    assert outcome.results.metrics["point_hit_rate"].value == 1.0
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert not rows["found"].any()
    assert set(rows["failure"]) == {"correct"}
    assert outcome.results.failures.ap50 is None


def test_whole_images_are_compared_with_their_captions(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path, metrics=[{"name": "clip_score"}]))
    [outcome] = api.run(toy, tmp_path / "run", model="fake")
    assert outcome.results is not None
    record = outcome.results.metrics["clip_score"]
    assert record.value is not None
    assert 0 <= record.value <= 100
    assert (record.n_scored, record.n_unscored, record.unit) == (5, 0, "score")
    table = pd.read_parquet(tmp_path / "run" / "observations" / "captions.parquet")
    assert record.value == pytest.approx((100 * table["similarity"].clip(lower=0)).mean(), rel=1e-6)
    (tmp_path / "run" / "images" / "000000000013.png").unlink()
    [outcome] = api.score(tmp_path / "run")
    assert outcome.results is not None
    assert outcome.results.metrics["clip_score"].reasons == {"no image": 1}


def test_a_box_benchmark_is_explained_by_boxes(tmp_path, fakes):
    class Frames(FakeDetector):
        """Sees every object as a thin frame: the box is right, the mask is not."""

        def detect(self, images):
            found = []
            for seen in super().detect(images):
                masks = []
                for mask in seen.masks:
                    filled = decode(mask)
                    rows, columns = filled.any(axis=1).nonzero()[0], filled.any(axis=0).nonzero()[0]
                    filled[rows[0] + 1 : rows[-1], columns[0] + 1 : columns[-1]] = False
                    masks.append(encode(filled))
                found.append(replace(seen, masks=tuple(masks)))
            return found

    fakes.detector = Frames()
    for name, conditions, kinds in (
        ("a", ["box"], {"correct"}),
        ("b", ["box", "mask"], {"misplaced", "missing"}),
    ):
        (tmp_path / name).mkdir()
        metrics = [{"name": "box_ap50"}]
        toy = str(write_benchmark(tmp_path / name, conditions=conditions, metrics=metrics))
        [outcome] = api.run(toy, tmp_path / name / "run", model="fake")
        assert outcome.results is not None
        assert outcome.results.metrics["box_ap50"].value == pytest.approx(1.0)
        rows = pd.read_parquet(tmp_path / name / "run" / "instances.parquet")
        assert set(rows["failure"]) <= kinds


def test_an_evaluator_can_be_left_out(toy, tmp_path, fakes):
    [whole] = api.run(toy, tmp_path / "whole", model="fake")
    [outcome] = api.run(toy, tmp_path / "run", model="fake", features="none")
    assert whole.results is not None
    assert outcome.results is not None
    assert set(whole.results.metrics) - set(outcome.results.metrics) == {"fid"}
    assert "features" not in outcome.results.evaluators
    assert outcome.results.metrics["box_ap50"] == whole.results.metrics["box_ap50"]
    with pytest.raises(InputError, match="holds another run"):
        api.run(toy, tmp_path / "run", model="fake")
    [again] = api.score(tmp_path / "whole", features="none")
    assert again.results is not None
    assert "fid" not in again.results.metrics
    only = str(write_benchmark(tmp_path, name="toy-fid", metrics=[{"name": "fid"}]))
    with pytest.raises(InputError, match="--features none: every number of toy-fid needs it"):
        api.run(only, tmp_path / "only", model="fake", features="none")
