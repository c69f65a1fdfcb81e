"""Variants of trained weights: they start from them, with one part changed, and end as pipeline folders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from instbench.datasets.shapes import export_coco
from reference_model import InstanceDiffusionPipeline
from reference_model.training.__main__ import main
from reference_model.training.base import load_start
from reference_model.training.recipe import recipe_from_overrides
from reference_model.training.variants import FROM_START, LONG, SHORT, VARIANTS
from tests.reference_model.tiny import tiny_unet

SHIPPED = Path(__file__).parents[3] / "reference_model" / "weights" / "shapes"
FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("variants")
    export_coco("shapes", "train", 4, root / "data")
    config = json.loads((SHIPPED / "unet" / "config.json").read_text())
    shape = (4, config["in_channels"], config["sample_size"], config["sample_size"])
    np.save(root / "latents.npy", np.random.default_rng(0).standard_normal(shape).astype(np.float16))
    command = ["variants", "--init", str(SHIPPED), "--data", str(root / "data")]
    command += ["--latents", str(root / "latents.npy"), "-o", str(root / "made")]
    command += ["--only", "no-scaleu", "joint-tokens", "from-start-no-scaleu"]
    for change in ("steps=1", "warmup=0", "cooldown=0", "lr=0.001", "batch_size=2", "autocast=null"):
        command += ["--set", change]
    assert main(command) == 0
    return root, command


def test_each_variant_is_a_pipeline_with_one_thing_changed(trained):
    root, _ = trained
    made = root / "made"
    assert sorted(one.name for one in made.iterdir()) == [
        "from-start-no-scaleu",
        "joint-tokens",
        "no-scaleu",
        "training",
    ]
    before = load_file(SHIPPED / "unet" / FILE)
    plain = load_file(made / "no-scaleu" / "unet" / FILE)
    assert set(before) - set(plain) == {name for name in before if name.startswith("scaleu.")}
    assert set(plain) <= set(before)
    joint = load_file(made / "joint-tokens" / "unet" / FILE)
    other = {name for name in set(before) ^ set(joint) if not name.startswith("position_net.")}
    assert not other
    # One step at a small rate: still the weights that it started from, but no longer the same.
    for weights in (plain, joint):
        name = "down_blocks.0.resnets.0.conv1.weight"
        apart = (weights[name].float() - before[name].float()).norm() / before[name].float().norm()
        assert 0 < apart < 0.05
    pipeline = InstanceDiffusionPipeline.from_pretrained(made / "joint-tokens")
    assert pipeline.unet.position_net.tokens_per_slot == 1
    assert (
        pipeline.config.sampling_defaults
        == InstanceDiffusionPipeline.from_pretrained(SHIPPED).config.sampling_defaults
    )
    recipe = json.loads((made / "joint-tokens" / "recipes.json").read_text())["unet"]["recipe"]
    assert (recipe["joint_tokens"], recipe["anew"]) == (True, ["position_net"])
    assert len(recipe["base_sha256"]) == 64


def test_a_variant_from_the_start_shares_all_but_the_unet(trained):
    root, _ = trained
    made = root / "made" / "from-start-no-scaleu"
    before, after = load_file(SHIPPED / "unet" / FILE), load_file(made / "unet" / FILE)
    assert set(before) - set(after) == {name for name in before if name.startswith("scaleu.")}
    name = "down_blocks.0.resnets.0.conv1.weight"
    apart = (after[name].float() - before[name].float()).norm() / before[name].float().norm()
    assert apart > 0.5  # nothing was taken over
    assert json.loads((made / "recipes.json").read_text())["unet"]["recipe"]["base_sha256"] is None
    for part in ("vae", "text_encoder"):
        for file in (SHIPPED / part).glob("*.safetensors"):
            assert (made / part / file.name).read_bytes() == file.read_bytes()


def test_a_finished_variant_is_not_trained_again(trained):
    root, command = trained
    file = root / "made" / "no-scaleu" / "unet" / FILE
    before = file.stat().st_mtime_ns
    assert main(command) == 0
    assert file.stat().st_mtime_ns == before


def test_the_table_of_variants_is_made_of_recipe_values():
    for variant, values in VARIANTS.items():
        shared = LONG if variant.startswith(FROM_START) else SHORT
        changes = [f"{name}={json.dumps(value)}" for name, value in {**shared, **values}.items()]
        recipe = recipe_from_overrides(changes, "shapes")
        assert (recipe.steps, recipe.batch_size) == (shared["steps"], shared["batch_size"])


def test_variants_from_the_start_have_the_recipe_of_the_shipped_weights():
    shipped = json.loads((SHIPPED / "recipes.json").read_text())["unet"]["recipe"]
    recipe = asdict(
        recipe_from_overrides([f"{name}={json.dumps(value)}" for name, value in LONG.items()], "shapes")
    )
    known = json.loads(json.dumps(recipe, default=str))
    assert {name: known[name] for name in shipped if name in known} == {
        name: value for name, value in shipped.items() if name in known
    }


def test_what_starts_anew_is_named_and_other_networks_are_refused(tmp_path):
    torch.manual_seed(0)
    tiny_unet().save_pretrained(tmp_path / "unet")
    unet = tiny_unet()
    before = {name: one.clone() for name, one in unet.state_dict().items()}
    saved = load_file(tmp_path / "unet" / FILE)
    new = load_start(unet, tmp_path / "unet", ("position_net.linears_list.0",))
    assert new
    assert all(name.startswith("position_net.linears_list.0") for name in new)
    for name, value in unet.state_dict().items():
        assert torch.equal(value, before[name] if name in new else saved[name])
    with pytest.raises(ValueError, match="no parameter is called nothing"):
        load_start(unet, tmp_path / "unet", ("nothing",))
    with pytest.raises(ValueError, match="0 safetensors, expected 1"):
        load_start(unet, tmp_path)
    with pytest.raises(ValueError, match="not the weights of this network"):
        load_start(unet, SHIPPED / "unet")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / FILE).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        load_start(unet, tmp_path / "broken")


def test_a_wrong_start_is_one_line(tmp_path, caplog):
    command = [
        "variants",
        "--init",
        str(tmp_path),
        "--data",
        "x",
        "--latents",
        "y",
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(command) == 2
    assert "--init takes a pipeline folder" in caplog.text
