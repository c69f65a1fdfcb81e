from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC

from reference_model.training import latents
from reference_model.training.autoencoder import (
    AutoencoderRecipe,
    build_autoencoder,
    gradient_l1,
    moment_divergence,
    train_autoencoder,
)
from reference_model.training.data import cached_images, read_folder

_TINY = AutoencoderRecipe(
    channels=(8, 8, 16, 16), layers=(0, 1, 1, 1), crop=32, batch_size=4, steps=6, warmup=2, holdout=2
)


def test_latents_are_eight_times_smaller_and_weights_depend_on_the_seed():
    model = build_autoencoder(_TINY)
    assert model.spatial_compression_ratio == 8
    latents = model.encode(torch.zeros(1, 3, 64, 64)).latent
    assert latents.shape == (1, 8, 8, 8)
    assert model.decode(latents).sample.shape == (1, 3, 64, 64)
    again, other = build_autoencoder(_TINY), build_autoencoder(replace(_TINY, seed=1))
    name = "encoder.conv_out.weight"
    assert torch.equal(model.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(model.state_dict()[name], other.state_dict()[name])


def test_gradient_l1_sees_edges_and_not_offsets():
    first = torch.zeros(1, 1, 4, 4)
    assert gradient_l1(first, first + 0.7).item() == pytest.approx(0.0, abs=1e-6)
    edge = first.clone()
    edge[..., 2:] = 1.0
    assert gradient_l1(first, edge).item() == pytest.approx(1 / 3)


def test_moment_divergence_is_zero_for_unit_channels_only():
    unit = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert moment_divergence(unit).item() < 1e-3
    assert moment_divergence(unit + 1).item() == pytest.approx(0.5, abs=0.05)
    assert moment_divergence(unit * 0.1).item() > 1.0


def test_interrupted_equals_uninterrupted_and_latents_have_unit_variance(
    training_folder: Path, tmp_path: Path
):
    whole = train_autoencoder(training_folder, tmp_path / "whole", _TINY, validate_every=3)
    assert whole.complete
    part = train_autoencoder(training_folder, tmp_path / "parts", _TINY, stop_at=2)
    assert not part.complete
    train_autoencoder(training_folder, tmp_path / "parts", _TINY)
    first, second = (AutoencoderDC.from_pretrained(tmp_path / name / "vae") for name in ("whole", "parts"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert (tmp_path / "whole" / "reconstructions.png").is_file()
    recipe = json.loads((tmp_path / "whole" / "vae" / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["figures"]["complete"]
    assert recipe["figures"]["psnr"] > 5

    vae = str(tmp_path / "whole" / "vae")
    assert latents.main(["--data", str(training_folder), "--vae", vae, "--batch-size", "3"]) == 0
    cached = np.load(training_folder / "latents.npy")
    assert cached.dtype == np.float16
    assert cached.shape == (8, 8, 8, 8)
    assert cached.astype(np.float32).std() == pytest.approx(1.0, abs=0.01)
    folder = read_folder(training_folder)
    image = torch.from_numpy(np.array(cached_images(folder)[5])).permute(2, 0, 1)[None].float() / 127.5 - 1
    model = AutoencoderDC.from_pretrained(vae, torch_dtype=torch.float32)
    with torch.no_grad():
        expected = model.encode(image).latent[0] * model.config.scaling_factor
    assert np.allclose(cached[5], expected.numpy(), atol=2e-2)


def test_a_little_training_improves_the_reconstruction(training_folder: Path, tmp_path: Path):
    recipe = replace(_TINY, steps=60, batch_size=8, lr=5e-3)
    report = train_autoencoder(training_folder, tmp_path, recipe)
    assert report.last["psnr"] > 15


def test_bad_input_is_named(training_folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="hold-out of 8"):
        train_autoencoder(training_folder, tmp_path, replace(_TINY, holdout=8))
    with pytest.raises(ValueError, match=r"config\.json"):
        latents.main(["--data", str(training_folder), "--vae", str(tmp_path)])
