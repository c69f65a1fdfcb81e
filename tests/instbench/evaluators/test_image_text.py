from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instbench.datasets.shapes import COLORS, TEXTURES, shapes_dataset
from instbench.errors import InputError
from instbench.evaluators import ImageTextModel, load_image_text, shipped_folder


@pytest.fixture(scope="module")
def model() -> ImageTextModel:
    return load_image_text("shapes-clip", device="cpu")


def test_zero_shot_colours_and_textures(model: ImageTextModel, pictures: list[Image.Image]) -> None:
    data = shapes_dataset("shapes", "val", 24)
    by_id = dict(zip(data.image_ids, pictures, strict=True))
    annotations = data.annotations["annotations"]
    crops = []
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        crops.append(by_id[annotation["image_id"]].crop((int(x), int(y), int(x + w), int(y + h))))
    for attribute, words, least in (("color", tuple(COLORS), 0.97), ("texture", TEXTURES, 0.95)):
        scores = model.similarity(crops, [f"a {word} object" for word in words])
        answers = [words[i] for i in scores.argmax(axis=1)]
        correct = [
            a == annotation["attributes"][attribute]
            for a, annotation in zip(answers, annotations, strict=True)
        ]
        assert np.mean(correct) >= least


def test_similarities_are_cosines_and_independent_of_the_batch(
    model: ImageTextModel, pictures: list[Image.Image]
) -> None:
    texts = ["a red object", "blue striped circle", "a red object"]
    together = model.similarity(pictures[:5], texts)
    assert together.shape == (5, 3)
    assert together.dtype == np.float32
    assert np.abs(together).max() <= 1 + 1e-5
    np.testing.assert_array_equal(together[:, 0], together[:, 2])
    alone = np.concatenate([model.similarity([picture], texts) for picture in pictures[:5]])
    np.testing.assert_array_equal(together, alone)


def test_empty_inputs(model: ImageTextModel, pictures: list[Image.Image]) -> None:
    assert model.similarity([], ["a"]).shape == (0, 1)
    assert model.similarity(pictures[:1], []).shape == (1, 0)
    with pytest.raises(InputError, match="image 0: size 0x4"):
        model.similarity([Image.new("RGB", (0, 4))], ["a"])


def test_identity_covers_the_tokenizer(model: ImageTextModel) -> None:
    names = set(model.identity()["sha256"])
    assert {"open_clip_model.safetensors", "open_clip_config.json", "tokenizer/tokenizer.json"} <= names


def test_broken_configurations_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(shipped_folder("shapes-clip"), folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    bad = {**config, "model_cfg": {**config["model_cfg"], "text_cfg": {"hf_model_name": "bert"}}}
    (folder / "open_clip_config.json").write_text(json.dumps(bad))
    with pytest.raises(InputError, match="towers from other libraries"):
        load_image_text(folder)
    bad = {**config, "model_cfg": {**config["model_cfg"], "depth": 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(bad))
    with pytest.raises(InputError, match="not a model that open_clip can build"):
        load_image_text(folder)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="field model_cfg is missing"):
        load_image_text(folder)
