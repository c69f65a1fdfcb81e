"""Autoencoder, text encoder and GLIGEN's UNet: names there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils

from reference_model.checkpoints.autoencoder import (
    autoencoder_from_published,
    autoencoder_params,
    autoencoder_to_published,
)
from reference_model.checkpoints.gligen import gligen_from_original, gligen_to_original
from reference_model.checkpoints.tensors import CheckpointError
from reference_model.checkpoints.text_encoder import text_encoder_from_published, text_encoder_to_published
from reference_model.checkpoints.whole import read_first_convolution
from tests.reference_model.tiny import tiny_tokenizer

from . import builders


def test_autoencoder_round_trip_is_exact() -> None:
    model = builders.autoencoder()
    published = autoencoder_to_published(model)
    assert published["encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    again = autoencoder_from_published(published, autoencoder_params(model))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(again.decode(latents).sample, model.decode(latents).sample)


def test_autoencoder_names_agree_with_those_that_diffusers_converts() -> None:
    model = builders.autoencoder()
    theirs = single_file_utils.convert_ldm_vae_checkpoint(
        {f"first_stage_model.{name}": tensor for name, tensor in autoencoder_to_published(model).items()},
        dict(model.config),
    )
    own = model.state_dict()
    assert set(theirs) == set(own)
    assert all(torch.equal(theirs[name].reshape(own[name].shape), own[name]) for name in own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ddconfig": {}}, "'ch_mult' is missing"),
        ({"embed_dim": 3}, "embed_dim = z_channels"),
    ],
)
def test_autoencoder_config_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        autoencoder_from_published({}, autoencoder_params(builders.autoencoder()) | change)


def test_text_encoder_gives_the_same_embeddings() -> None:
    model, tokenizer = builders.text_encoder(), tiny_tokenizer()
    published = text_encoder_to_published(model)
    expected = builders.published_text(model)
    del expected["transformer.text_model.embeddings.position_ids"]
    assert set(published) == set(expected)
    again = text_encoder_from_published(published, tokenizer)
    ids = tokenizer(["a cat"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        first, second = model(input_ids=ids), again(input_ids=ids)
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert torch.equal(first.pooler_output, second.pooler_output)


def test_text_encoder_and_tokenizer_must_belong_together() -> None:
    published = text_encoder_to_published(builders.text_encoder())
    name = "transformer.text_model.embeddings.token_embedding.weight"
    with pytest.raises(
        CheckpointError, match="--tokenizer: has 80 entries, but the text encoder 7 embeddings"
    ):
        text_encoder_from_published(published | {name: published[name][:7]}, tiny_tokenizer())
    with pytest.raises(CheckpointError, match="this is not CLIP's text encoder"):
        text_encoder_from_published({"model.weight": torch.zeros(1)}, tiny_tokenizer())


def test_gligen_round_trip_is_exact() -> None:
    unet = builders.gligen_unet()
    original = gligen_to_original(unet)
    assert "position_net.linears.4.bias" in original
    assert "output_blocks.3.1.transformer_blocks.0.fuser.alpha_dense" in original
    again = gligen_from_original(original, builders.GLIGEN_PARAMS)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in unet.state_dict().items())
    assert again.config.attention_type == "gated"
    with pytest.raises(ValueError, match=r"missing: position_net\.null_position_feature"):
        gligen_from_original(
            {k: v for k, v in original.items() if k != "position_net.null_position_feature"},
            builders.GLIGEN_PARAMS,
        )


def test_first_convolution(tmp_path: Path) -> None:
    convolution = torch.nn.Conv2d(4, 8, 3)
    torch.save(convolution.state_dict(), tmp_path / "a.pth")
    read = read_first_convolution(tmp_path / "a.pth")
    assert set(read) == {"weight", "bias"}
    assert torch.equal(read["weight"], convolution.weight)
    torch.save({"encoder.conv_in.weight": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="this is an autoencoder alone, not a single convolution"):
        read_first_convolution(tmp_path / "b.pth")
