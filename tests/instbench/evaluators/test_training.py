from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from instbench.errors import InputError
from instbench.evaluators import load_detector, load_features, load_image_text, shipped_folder
from instbench.evaluators.training.__main__ import main
from instbench.evaluators.training.augment import degrade
from instbench.evaluators.training.detector import _zoom, detector_batch
from instbench.evaluators.training.features import content_targets
from instbench.evaluators.training.image_text import crop_box
from instbench.evaluators.training.loop import LoopSettings, batch_indices, run_loop
from instbench.evaluators.training.measure import measure
from instbench.evaluators.training.recipes import train
from instbench.evaluators.training.scenes import SceneSet, concatenate, load_scenes


@pytest.fixture(scope="module")
def scenes(scenes_folder: Path) -> SceneSet:
    return load_scenes(scenes_folder)


def test_scenes_agree_with_the_annotations(scenes: SceneSet, scenes_folder: Path) -> None:
    data = json.loads((scenes_folder / "instances.json").read_text())
    assert len(scenes) == 12
    assert sum(map(len, scenes.objects)) == len(data["annotations"])
    assert all(len(text.split()) == 2 for text in scenes.backgrounds)
    for objects, instances in zip(scenes.objects, scenes.instance_maps, strict=True):
        for number, box in enumerate(objects.boxes_xyxy, start=1):
            rows, columns = np.nonzero(instances == number)
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(box, extent, atol=1)


def test_bad_data_is_named(scenes_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instances\.json: no such file"):
        load_scenes(tmp_path)
    folder = tmp_path / "bad"
    shutil.copytree(scenes_folder, folder)
    data = json.loads((folder / "instances.json").read_text())
    first = data["images"][0]["file_name"]
    for change, message in (
        (lambda d: d["annotations"][0].pop("attributes"), "bad or missing field"),
        (lambda d: d["annotations"][0].update(segmentation=None), "field segmentation"),
        (lambda d: d["images"][0].update(file_name="../../secret.png"), "leaves the images folder"),
        (lambda d: d["images"][0].update(file_name="none.png"), "missing or unreadable"),
    ):
        broken = json.loads(json.dumps(data))
        change(broken)
        (folder / "instances.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=message):
            load_scenes(folder)
    assert first


def test_concatenate_unites_categories(scenes: SceneSet) -> None:
    both = concatenate([scenes, scenes])
    assert len(both) == 24
    assert both.categories == scenes.categories
    assert both.image_ids == tuple(range(24))


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(8, 40), width=st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_degrade_keeps_form_and_tone(seed: int, height: int, width: int) -> None:
    image = np.full((height, width, 3), (222, 36, 36), np.uint8)
    out = degrade(image, np.random.default_rng(seed), clean_share=0.0)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    # Bounded on average: the tone shift is at most 8 + 6, the contrast 8 % around the middle.
    assert np.abs(out.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 32


@given(count=st.integers(1, 30), batch=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_batches_visit_everything_equally(count: int, batch: int, seed: int) -> None:
    seen = np.concatenate([batch_indices(count, batch, step, seed) for step in range(count)])
    np.testing.assert_array_equal(np.bincount(seen, minlength=count), batch)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_zoom_moves_boxes_with_masks(scenes: SceneSet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = int(rng.integers(len(scenes)))
    boxes = scenes.objects[index].boxes_xyxy
    image, instances, moved = _zoom(scenes.images[index], scenes.instance_maps[index], boxes, rng)
    assert image.shape == scenes.images[index].shape
    for number, box in enumerate(moved, start=1):
        rows, columns = np.nonzero(instances == number)
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # The tips of stars are a pixel wide and may fall between two: 2.44 pixels is the most over all these seeds.
        np.testing.assert_allclose(box, extent, atol=2.5)


def test_detector_batch_has_the_form_that_ultralytics_takes(scenes: SceneSet) -> None:
    class_of = {name: position for position, name in enumerate(scenes.categories)}
    batch = detector_batch(scenes, np.arange(6), class_of, np.random.default_rng(0))
    objects = sum(len(scenes.objects[i]) for i in range(6))
    assert batch["img"].shape == (6, 3, 128, 128)
    assert 0 <= batch["img"].min() <= batch["img"].max() <= 1
    assert batch["masks"].shape == (6, 64, 64)
    assert batch["bboxes"].shape == (objects, 4)
    assert batch["cls"].shape == (objects, 1)
    for position in range(6):
        assert int(batch["masks"][position].max()) == int((batch["batch_idx"] == position).sum())


@given(box=st.tuples(*[st.floats(-20, 150)] * 4))
@settings(max_examples=40, deadline=None)
def test_crops_are_never_empty(box: tuple[float, float, float, float]) -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    for rng in (None, np.random.default_rng(0)):
        crop = crop_box(image, box, rng)
        assert crop.shape[0] >= 1
        assert crop.shape[1] >= 1


def test_content_targets(scenes: SceneSet) -> None:
    targets, names = content_targets(scenes)
    assert targets.shape == (12, len(names))
    row = dict(zip(names, targets[0], strict=True))
    objects = scenes.objects[0]
    assert all(row[f"shape {word}"] == 1 for word in objects.categories)
    assert sum(value for name, value in row.items() if name.startswith("background")) == 2


def _linear_run(out: Path, steps: int, stop_after: int | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(network: nn.Module, step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if step == stop_after:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))
        return {"loss": (network(x) - x.sum(dim=1, keepdim=True)).square().mean()}

    options = LoopSettings(steps=steps, batch_size=8, learning_rate=0.15, warmup_steps=2, ema=0.9)
    return run_loop(model, loss, options, out, checkpoint_every=5).model.weight.detach()


def test_an_interrupted_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _linear_run(tmp_path / "a", 60, stop_after=33)
    resumed = _linear_run(tmp_path / "a", 60)
    whole = _linear_run(tmp_path / "b", 60)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert (whole - 1).abs().max() < 0.3
    with pytest.raises(InputError, match="made with other settings"):
        _linear_run(tmp_path / "a", 61)


def test_detector_recipe_end_to_end(scenes_folder: Path, tmp_path: Path) -> None:
    folder = train("detector", [scenes_folder], [8], tmp_path, steps=2, batch_size=4)
    detector = load_detector(folder, device="cpu")
    assert detector.categories[0] == "circle"
    figures = measure(folder, scenes_folder, limit=2, write=True)
    assert isinstance(figures, dict)
    again = train("detector", [scenes_folder], [8], tmp_path, steps=2, batch_size=4)
    assert load_detector(again, device="cpu").identity() == detector.identity()
    further = train("detector", [scenes_folder], [8], tmp_path / "more", steps=1, batch_size=4, start=folder)
    assert load_detector(further, device="cpu").identity() != detector.identity()
    readme = (further / "README.md").read_text()
    assert readme.count("- Command: `python -m instbench.evaluators.training detector") == 2
    with pytest.raises(InputError, match="only the detector can start"):
        train("features", [scenes_folder], [8], tmp_path / "f", steps=1, start=folder)


def test_image_text_recipe_end_to_end(scenes_folder: Path, tmp_path: Path) -> None:
    tokenizer = shipped_folder("shapes-clip") / "tokenizer"
    folder = train("image-text", [scenes_folder], [8], tmp_path, steps=2, batch_size=8, tokenizer=tokenizer)
    load_image_text(folder, device="cpu")
    figures = measure(folder, scenes_folder, limit=3, write=True)
    assert set(figures) >= {"color_accuracy", "texture_accuracy", "shape_accuracy", "color_accuracy_degraded"}
    assert json.loads((folder / "evaluator.json").read_text())["figures"]["shapes-val"] == figures
    with pytest.raises(InputError, match="--tokenizer None"):
        train("image-text", [scenes_folder], [8], tmp_path, steps=1)


def test_features_recipe_end_to_end(scenes_folder: Path, tmp_path: Path) -> None:
    folder = train("features", [scenes_folder], [8], tmp_path, steps=2, batch_size=4)
    assert load_features(folder, device="cpu").num_features == 96


def test_command_line_reports_bad_input(tmp_path: Path) -> None:
    assert main(["features", "--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert main(["measure", str(tmp_path), "--data", str(tmp_path)]) == 2
