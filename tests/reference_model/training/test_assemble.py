"""Trained parts become one pipeline folder in half precision."""

import json

import pytest
import torch
from safetensors.torch import load_file

from reference_model import InstanceDiffusionPipeline
from reference_model.training.assemble import assemble, main
from reference_model.training.common import write_json
from tests.reference_model.tiny import tiny_pipeline

PARTS = ("vae", "text_encoder", "tokenizer", "unet")
RECIPE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
SETTINGS = {"num_inference_steps": 2, "mis": 0.0}


@pytest.fixture
def parts(tmp_path):
    pipeline = tiny_pipeline()
    for name in PARTS:
        getattr(pipeline, name).save_pretrained(tmp_path / name)
        write_json(tmp_path / name / "recipe.json", {"recipe": {**RECIPE, "part": name}})
    return [tmp_path / name for name in PARTS]


def test_parts_become_a_pipeline(parts, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("card")
    (out / "stale.txt").write_text("from an older run")
    folder = assemble(*parts, out, SETTINGS)
    assert folder == out
    for name in ("vae", "text_encoder", "unet"):
        (file,) = (folder / name).glob("*.safetensors")
        assert {value.dtype for value in load_file(file).values() if value.is_floating_point()} == {
            torch.float16
        }
    assert (folder / "README.md").read_text() == "card"
    assert not (folder / "stale.txt").exists()
    assert not (tmp_path / "out.part").exists()
    recipes = json.loads((folder / "recipes.json").read_text())
    assert {name: recipes[name]["recipe"]["part"] for name in recipes} == {name: name for name in PARTS}

    loaded = InstanceDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert loaded.resolve_sampling().num_inference_steps == 2
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert loaded.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    original = load_file(parts[3] / "diffusion_pytorch_model.safetensors")
    for name, value in loaded.unet.state_dict().items():
        assert torch.equal(value, original[name].half().float()), name


@pytest.mark.parametrize("missing", PARTS)
def test_a_part_without_a_recipe_is_refused(parts, tmp_path, missing):
    (tmp_path / missing / "recipe.json").unlink()
    with pytest.raises(ValueError, match=rf"{missing}: no recipe\.json"):
        assemble(*parts, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_the_command_records_the_sampling_settings(parts, tmp_path):
    flags = [f"--{name.replace('_', '-')}" for name in PARTS]
    arguments = [text for pair in zip(flags, map(str, parts), strict=True) for text in pair]
    assert main([*arguments, "-o", str(tmp_path / "out"), "--sampling", json.dumps(SETTINGS)]) == 0
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    recorded = index["sampling_defaults"]
    assert {name: recorded[name] for name in SETTINGS} == SETTINGS
