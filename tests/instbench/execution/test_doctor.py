from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from instbench.cli.main import main
from instbench.evaluators import shipped_folder
from instbench.evaluators.base import Detections
from instbench.execution.doctor_evaluators import (
    check_detector,
    check_features,
    check_image_text,
    installed_evaluators,
)
from instbench.execution.known_pictures import OBJECTS, TEXTS, photograph
from tests.instbench.evaluators.builders import save_yolo, yolo_network
from tests.instbench.fakes import FakeFeatures

NAMES = ("person", "bicycle", "cat", "cup", "motorcycle")


class _Oracle:
    """Finds the objects of the photographs, as a real detector would."""

    categories = ("person", "cat", "cup", "motorbike", "dog")

    def __init__(self, *, blind: int = 0, wrong: str | None = None) -> None:
        self.blind, self.wrong = blind, wrong
        self.pictures = {name: photograph(name).tobytes() for name in OBJECTS}

    def detect(self, images):
        return [self._one(image) for image in images]

    def _one(self, image: Image.Image) -> Detections:
        number, known = next(
            (number, known)
            for number, (name, known) in enumerate(OBJECTS.items())
            if self.pictures[name] == image.tobytes()
        )
        if number < self.blind:
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
        category = self.wrong or known.category.replace("motorcycle", "motorbike")
        box = np.asarray([known.box_xyxy], dtype=np.float32) + 5
        return Detections(box, np.array([0.8], np.float32), (category,))

    def identity(self):
        return {"kind": "oracle"}


def _scenes():
    random = np.random.default_rng(0)
    return (), [Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(4)]


def test_every_picture_is_there() -> None:
    for name in {*OBJECTS, *TEXTS}:
        image = photograph(name)
        assert image.mode == "RGB"
        if name in OBJECTS:
            x0, y0, x1, y1 = OBJECTS[name].box_xyxy
            assert 0 <= x0 < x1 <= image.width
            assert 0 <= y0 < y1 <= image.height


def test_a_detector_of_photographs_must_see_the_objects() -> None:
    assert check_detector(_Oracle(), _scenes()) == (True, "4 of 4 objects found in photographs")
    assert check_detector(_Oracle(blind=1), _scenes())[0]
    passed, detail = check_detector(_Oracle(blind=2), _scenes())
    assert not passed
    assert detail == (
        "2 of 4 objects found in photographs, not the person in astronaut.png, the cat in chelsea.png"
    )
    assert not check_detector(_Oracle(wrong="dog"), _scenes())[0]


def test_an_image_text_model_must_tell_photographs_apart() -> None:
    pictures = [photograph(name).tobytes() for name in TEXTS]

    class Model:
        def __init__(self, shift: int) -> None:
            self.shift = shift

        def similarity(self, images, texts):
            rows = np.zeros((len(images), len(texts)), np.float32)
            for row, image in zip(rows, images, strict=True):
                row[(pictures.index(image.tobytes()) + self.shift) % len(texts)] = 1.0
            return rows

    scenes = _shapes_scenes()

    def check(model):
        model.colours = model.similarity
        model.similarity = lambda images, texts: (
            model.colours(images, texts)
            if len(texts) == len(TEXTS) and images[0].tobytes() in pictures
            else np.zeros((len(images), len(texts)), np.float32)
        )
        return check_image_text(model, scenes)

    assert check(Model(0))[0]
    passed, detail = check(Model(1))
    assert not passed
    assert detail.startswith("0 of 8 photographs")


def _shapes_scenes():
    from instbench.execution.doctor import _render_scenes
    from instbench.execution.session import Session

    return _render_scenes(Session(device="cpu"))


def test_features_must_be_finite_repeatable_and_distinct() -> None:
    assert check_features(FakeFeatures(), _scenes()) == (True, "12 features, sound")

    class Constant(FakeFeatures):
        def features(self, images):
            return np.ones((len(images), 12), np.float32)

    class Moody(FakeFeatures):
        calls = 0

        def features(self, images):
            self.calls += 1
            return super().features(images) + self.calls

    class Broken(FakeFeatures):
        def features(self, images):
            return np.full((len(images), 12), np.nan, np.float32)

    for extractor, fault in (
        (Constant(), "same for different"),
        (Moody(), "not the same"),
        (Broken(), "finite"),
    ):
        passed, detail = check_features(extractor, _scenes())
        assert not passed
        assert fault in detail


def test_shipped_weights_pass_and_randomised_ones_fail(tmp_path: Path, capsys) -> None:
    assert main(["doctor", "--detector", "shapes-yolo", "--features", "shapes-features"]) == 0
    out = capsys.readouterr().out
    assert "ok    detector shapes-yolo: 42 of 42 objects found" in out
    assert "ok    feature extractor shapes-features: 96 features, sound" in out
    assert "image-text" not in out
    assert "model reference" not in out
    folder = shutil.copytree(shipped_folder("shapes-yolo"), tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            state[name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * tensor.std()
    save_file(state, folder / "model.safetensors")
    assert main(["doctor", "--detector", str(folder)]) == 1
    captured = capsys.readouterr().out
    assert f"FAIL  detector {folder}: 0 of 42 objects found" in captured
    assert "1 of 2 checks failed" in captured


@pytest.mark.parametrize("names", [NAMES, ("gadget",)])
def test_random_weights_of_a_photograph_detector_fail(tmp_path: Path, capsys, names) -> None:
    path = save_yolo(tmp_path / "random.pt", yolo_network(names=names))
    assert main(["doctor", "--detector", str(path)]) == 1
    out = capsys.readouterr().out
    expected = "0 of 4 objects found in photographs" if names == NAMES else "knows none of the 4 categories"
    assert f"FAIL  detector {path}: " in out
    assert expected in out


def test_known_files_are_checked_where_they_are(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    assert installed_evaluators()["detector"] == ["shapes-yolo"]
    (tmp_path / "weights" / "ViT-L-14").mkdir(parents=True)
    for name in (
        "yolov8m-seg.pt",
        "weights-inception-2015-12-05-6726825d.pth",
        "ViT-L-14/laion2b_s32b_b82k.bin",
    ):
        (tmp_path / "weights" / name).touch()
    assert installed_evaluators() == {
        "detector": ["shapes-yolo", "yolov8m-seg"],
        "image_text": ["shapes-clip", "ViT-L-14/laion2b_s32b_b82k"],
        "features": ["shapes-features", "inception"],
    }
