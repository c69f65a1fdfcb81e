from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instbench.errors import InputError
from instbench.evaluators import load_features
from instbench.evaluators.inception import InceptionFeatures
from tests.instbench.evaluators.builders import inception_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inception_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def noise() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def test_equals_the_network_of_torchmetrics(weights, noise) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = load_features(weights, device="cpu")
    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(weights))
    expected = torch.cat([metric.inception(_tensor(image)) for image in noise]).numpy()
    np.testing.assert_array_equal(features.features(noise), expected)
    assert features.num_features == expected.shape[1] == 2048
    for image in noise:
        metric.update(_tensor(image), real=True)
    summed = features.features(noise).astype(float).sum(0)
    np.testing.assert_allclose(metric.real_features_sum.numpy(), summed, rtol=1e-6)


def test_the_other_rule_is_that_of_torch_fidelity(weights, noise) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    reference = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    ours = InceptionFeatures(weights, resize="tensorflow1", device="cpu")
    expected = torch.cat([reference(_tensor(image))[0] for image in noise]).numpy()
    np.testing.assert_allclose(ours.features(noise), expected, rtol=1e-5, atol=1e-6)
    assert "torch-fidelity" in ours.identity()["resize"]
    assert not np.allclose(
        ours.features(noise), load_features(weights, device="cpu").features(noise), rtol=1e-3
    )


def test_sizes_may_be_mixed(weights, noise) -> None:
    features = InceptionFeatures(weights, device="cpu", batch_size=4)
    mixed = [noise[0], noise[1].resize((40, 80))]
    alone = np.concatenate([features.features([image]) for image in mixed])
    np.testing.assert_allclose(features.features(mixed), alone, rtol=1e-4, atol=1e-5)
    assert features.features([]).shape == (0, 2048)


def test_bad_files_are_named(weights, tmp_path, monkeypatch) -> None:
    class Gadget:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    torch.save({"a": Gadget()}, tmp_path / "hostile.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save({"a": {"b": 1}}, tmp_path / "nested.pth")
    for name, message in (
        ("hostile.pth", r"asks for 'posix\.system'"),
        ("other.pth", "not the weights of the Inception v3"),
        ("nested.pth", "a is no tensor"),
        ("gone.pth", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_features(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"6726825d\.pth: no such file; download https://github\.com/toshas"):
        load_features("inception")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match=r"expected 6726825d0af5…"):
        load_features("inception-tf1")
