from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from instbench.errors import InputError
from instbench.evaluators import FeatureExtractor, load_features, shipped_folder


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_features("shapes-features", device="cpu")


def test_features_have_the_promised_form(extractor: FeatureExtractor, pictures: list[Image.Image]) -> None:
    rows = extractor.features(pictures[:5])
    assert rows.shape == (5, extractor.num_features)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    alone = np.concatenate([extractor.features([picture]) for picture in pictures[:5]])
    np.testing.assert_array_equal(rows, alone)
    assert extractor.features([]).shape == (0, extractor.num_features)


def test_features_move_with_content_and_quality(
    extractor: FeatureExtractor, pictures: list[Image.Image]
) -> None:
    rows = extractor.features(pictures)
    blurred = extractor.features([picture.filter(ImageFilter.GaussianBlur(2)) for picture in pictures])
    plain = extractor.features([Image.new("RGB", (128, 128), (128, 128, 128))] * len(pictures))
    spread = rows.std(axis=0).mean()
    assert spread > 0
    assert np.linalg.norm(blurred.mean(axis=0) - rows.mean(axis=0)) > spread
    assert np.linalg.norm(plain.mean(axis=0) - rows.mean(axis=0)) > spread


def test_other_sizes_are_resized_by_the_named_rule(
    extractor: FeatureExtractor, pictures: list[Image.Image]
) -> None:
    large = pictures[0].resize((512, 256), Image.Resampling.BICUBIC)
    back = large.resize((128, 128), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(extractor.features([large]), extractor.features([back]))
    assert extractor.identity()["resize"] == "bicubic antialiased to 128x128, aspect not kept"
    assert set(extractor.identity()["sha256"]) == {"config.json", "model.safetensors"}


def test_wrong_configuration_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    shutil.copytree(shipped_folder("shapes-features"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_type": "wide"}))
    with pytest.raises(InputError, match="not a ResNet"):
        load_features(folder)
