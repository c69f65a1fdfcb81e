"""The UNet's recipe: it runs, refuses another recipe, and resumes to the same weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from instbench.datasets.shapes import export_coco
from reference_model import InstanceUNet
from reference_model.training.recipe import UNetRecipe, learning_rate_factor, recipe_from_overrides
from reference_model.training.trainer import Trainer
from reference_model.training.unet import main
from tests.reference_model.tiny import tiny_tokenizer, tiny_unet

WIDTH = 16
SMALL = {
    "channels": [32, 32],
    "attention_head_dim": 16,
    "max_instances": 4,
    "num_mask_points": 16,
    "grounding_mid_dim": 16,
    "segment_size": 64,
    "convnext_widths": [4, 4, 4, 4],
    "batch_size": 2,
    "autocast": None,
    "warmup": 1,
    "cooldown": 1,
    "steps": 3,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    export_coco("shapes", "train", 4, root / "data")
    latents = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float16)
    np.save(root / "latents.npy", latents)
    tokenizer = tiny_tokenizer(77)
    tokenizer.save_pretrained(root / "tokenizer")
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(config).save_pretrained(root / "text_encoder")
    return root


def train(parts, output, *extra, **changes):
    arguments = ["--data", str(parts / "data"), "--latents", str(parts / "latents.npy"), "-o", str(output)]
    arguments += ["--text-encoder", str(parts / "text_encoder"), "--tokenizer", str(parts / "tokenizer")]
    for name, value in {**SMALL, **changes}.items():
        arguments += ["--set", f"{name}={json.dumps(value)}"]
    assert main([*arguments, "--log-every", "1", *extra]) == (1 if "--max-minutes" in extra else 0)
    return load_file(output / "unet" / "diffusion_pytorch_model.safetensors")


def test_interrupted_and_resumed_equals_uninterrupted(parts, tmp_path):
    whole = train(parts, tmp_path / "whole")
    train(parts, tmp_path / "halves", "--max-minutes", "0")
    recipe = json.loads((tmp_path / "halves" / "recipe.json").read_text())
    assert recipe["steps"] == 1
    resumed = train(parts, tmp_path / "halves")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    recipe = json.loads((tmp_path / "whole" / "recipe.json").read_text())
    assert recipe["part"] == "UNetRecipe"
    assert recipe["recipe"]["channels"] == [32, 32]
    assert (recipe["steps"], recipe["figures"]["samples"]) == (3, 6)
    unet = InstanceUNet.from_pretrained(tmp_path / "whole" / "unet")
    assert unet.config.masked_attention == "correct"
    assert unet.config.local_mask_radius == {"point": 0.15, "scribble": 0.08}
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    with pytest.raises(ValueError, match="another lr"):
        train(parts, tmp_path / "whole", lr=0.5)


def test_the_rate_rises_stays_and_falls():
    recipe = UNetRecipe(steps=100, warmup=10, cooldown=20)
    factors = [learning_rate_factor(step, recipe) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:81] == [1.0] * 72
    assert factors[90] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.05)


def test_overrides_are_checked():
    recipe = recipe_from_overrides(['rules={"text_only": 0.5}', "local_mask_radius=null", "channels=[8, 16]"])
    assert recipe.rules.text_only == 0.5
    assert recipe.local_mask_radius is None
    assert recipe.channels == (8, 16)
    with pytest.raises(ValueError, match="no recipe value 'learning_rate'"):
        recipe_from_overrides(["learning_rate=1"])
    with pytest.raises(ValueError, match="no rule 'nothing'"):
        recipe_from_overrides(['rules={"nothing": 1}'])
    with pytest.raises(ValueError, match="'steps' is not JSON"):
        recipe_from_overrides(["steps=many"])


def test_a_batch_that_does_not_divide_is_refused():
    accelerator = SimpleNamespace(num_processes=2, process_index=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="batch_size: 3 is not a multiple of 2 processes"):
        Trainer(accelerator, UNetRecipe(batch_size=3), dataset=None, unet=tiny_unet(), compiled=False)
