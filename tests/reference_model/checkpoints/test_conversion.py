"""Whole checkpoints: file to pipeline folder to images, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model.checkpoints import CheckpointError, convert, publish
from reference_model.pipeline import InstanceDiffusionPipeline
from reference_model.unet import InstanceUNet

from . import builders

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def ema(published_weights: Tensors) -> Tensors:
    return {name: tensor.float() for name, tensor in published_weights.items()}


@pytest.fixture(scope="module")
def content(ema: Tensors, published_params: dict[str, Any]) -> dict[str, Any]:
    """A whole checkpoint whose averaged weights are the recorded ones."""
    model = {name: torch.full_like(tensor, 0.01) for name, tensor in ema.items()}
    return builders.whole(model, published_params, ema=ema)


@pytest.fixture(scope="module")
def folder(content: dict[str, Any], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("converted")
    done = convert(builders.save(base / "published.pth", content), base / "pipeline", tokenizer=tokenizer)
    assert (done.weights, done.dtype, done.left_out) == ("ema", "float32", ("opt", "scheduler", "iters"))
    assert done.parameters == sum(tensor.numel() for tensor in content["ema"].values())
    assert sorted(path.name for path in base.iterdir()) == ["pipeline", "published.pth"]
    return base / "pipeline"


def test_every_weight_arrives_exactly(folder: Path, golden_unet: InstanceUNet) -> None:
    pipeline = InstanceDiffusionPipeline.from_pretrained(folder)
    for name, tensor in golden_unet.state_dict().items():
        assert torch.equal(pipeline.unet.state_dict()[name], tensor), name
    for module, expected in (
        (pipeline.vae, builders.autoencoder()),
        (pipeline.text_encoder, builders.text_encoder()),
    ):
        ours, theirs = module.state_dict(), expected.state_dict()
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.text_encoder.config.num_attention_heads == 1
    published = builders.diffusion_tables()["alphas_cumprod"]
    assert torch.allclose(pipeline.scheduler.alphas_cumprod, published, rtol=1e-5)
    assert float(pipeline.scheduler.final_alpha_cumprod) == float(pipeline.scheduler.alphas_cumprod[0])


def test_round_trip_through_published_names_is_exact(
    folder: Path, content: dict[str, Any], tokenizer: Path, tmp_path: Path
) -> None:
    publish(folder, tmp_path / "published.safetensors")
    tensors = load_file(tmp_path / "published.safetensors")
    for part, name in (("model", "ema"), ("autoencoder", "autoencoder"), ("text_encoder", "text_encoder")):
        expected = {key: value for key, value in content[name].items() if not key.endswith("position_ids")}
        found = {
            key.removeprefix(f"{part}."): value
            for key, value in tensors.items()
            if key.startswith(f"{part}.")
        }
        assert set(found) == set(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    done = convert(tmp_path / "published.safetensors", tmp_path / "again", tokenizer=tokenizer)
    assert done.weights == "model"
    for part in ("unet", "vae"):
        file = "diffusion_pytorch_model.safetensors"
        first, second = load_file(folder / part / file), load_file(tmp_path / "again" / part / file)
        assert all(torch.equal(first[name], second[name]) for name in first)
    unet = json.loads((tmp_path / "again" / "unet" / "config.json").read_text())
    assert (
        unet["grounding_keep"] == json.loads((folder / "unet" / "config.json").read_text())["grounding_keep"]
    )


def test_float16_halves_the_files_and_overflow_is_named(
    content: dict[str, Any], tokenizer: Path, tmp_path: Path
) -> None:
    source = builders.save(tmp_path / "a.pth", content)
    done = convert(source, tmp_path / "half", tokenizer=tokenizer, dtype="float16")
    assert done.dtype == "float16"
    with safe_open(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors", "pt") as handle:
        assert {handle.get_slice(name).get_dtype() for name in handle.keys()} == {"F16"}  # noqa: SIM118
    large = content | {"ema": content["ema"] | {"out.2.bias": torch.full((4,), 1e6)}}
    with pytest.raises(CheckpointError, match=r"ema: too large for torch.float16: out\.2\.bias"):
        convert(
            builders.save(tmp_path / "b.pth", large), tmp_path / "x", tokenizer=tokenizer, dtype="float16"
        )


def test_gligen_both_layouts(tokenizer: Path, tmp_path: Path) -> None:
    content = builders.gligen_whole()
    done = convert(builders.save(tmp_path / "gligen.pth", content), tmp_path / "folder", tokenizer=tokenizer)
    assert "GLIGEN" in done.kind
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionGLIGENPipeline"
    expected = builders.gligen_unet().state_dict()
    converted = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(converted) == set(expected)
    assert all(torch.equal(converted[name], expected[name]) for name in expected)
    publish(tmp_path / "folder", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(back[f"model.{name}"], tensor) for name, tensor in content["model"].items())
    again = convert(tmp_path / "folder", tmp_path / "second", dtype="float16")
    assert (again.kind, again.dtype) == (done.kind, "float16")
    with pytest.raises(CheckpointError, match="GLIGEN in diffusers' layout, not 'instancediffusion'"):
        convert(tmp_path / "folder", tmp_path / "third", format="instancediffusion")


def _damage(part: str, name: str, value: Tensor | None) -> Any:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        changed = {key: tensor for key, tensor in content[part].items() if key != name}
        return content | {part: changed if value is None else changed | {name: value}}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_damage("model", "scaleu_b_3", None), "ema and model do not have the same tensors: scaleu_b_3"),
        (
            _damage("ema", "out.2.bias", torch.tensor([1.0, float("nan"), 0, 0])),
            r"ema: NaN or infinite.*out\.2\.bias",
        ),
        (
            _damage("ema", "out.2.bias", torch.zeros(4, dtype=torch.int8)),
            r"ema:.*wrong dtype.*out\.2\.bias \(torch.int8",
        ),
        (_damage("ema", "out.2.bias", torch.zeros(5)), r"ema: .*wrong shape: out\.2\.bias \(5,\)"),
        (_damage("autoencoder", "quant_conv.bias", None), r"autoencoder: .*missing: quant_conv\.bias"),
        (_damage("autoencoder", "loss.logvar", torch.zeros(1)), r"autoencoder: .*unexpected: loss\.logvar"),
        (
            _damage("autoencoder", "quant_conv.bias", torch.zeros(3)),
            r"autoencoder: wrong shape: quant_conv\.bias",
        ),
        (
            _damage("text_encoder", "transformer.text_model.final_layer_norm.bias", None),
            r"text_encoder: .*missing: .*final_layer_norm\.bias",
        ),
        (_damage("text_encoder", "extra", torch.zeros(1)), "text_encoder: .*unexpected: .*extra"),
        (
            _damage("diffusion", "betas", torch.zeros(1000)),
            r"diffusion\.betas: are not those of the configuration",
        ),
        (_damage("diffusion", "gamma", torch.zeros(1)), "diffusion: unexpected: gamma"),
        (lambda c: {k: v for k, v in c.items() if k != "diffusion"}, "missing parts: diffusion"),
        (lambda c: {k: v for k, v in c.items() if k != "config_dict"}, "config_dict is missing; .*--config"),
        (lambda c: c | {"config_dict": {"model": {}}}, r"model\.params is missing in the configuration"),
        (lambda c: c | {"callbacks": 3}, "unexpected parts: callbacks"),
        (lambda c: {"model": c["ema"]}, "this is the UNet of InstanceDiffusion alone"),
    ],
)
def test_damage_is_named_in_one_line_and_nothing_is_written(
    change: Any, message: str, content: dict[str, Any], tokenizer: Path, tmp_path: Path
) -> None:
    source = builders.save(tmp_path / "a.pth", change(content))
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(source, tmp_path / "out", tokenizer=tokenizer)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_weights_and_config_can_be_chosen(
    content: dict[str, Any], published_params: dict[str, Any], tokenizer: Path, tmp_path: Path
) -> None:
    yaml_file = tmp_path / "test.yaml"
    yaml_file.write_text(json.dumps(builders.config(published_params)))  # JSON is YAML
    source = builders.save(tmp_path / "a.pth", {k: v for k, v in content.items() if k != "config_dict"})
    done = convert(source, tmp_path / "out", tokenizer=tokenizer, config=yaml_file, weights="model")
    assert done.weights == "model"
    unet = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert float(unet["conv_in.bias"][0]) == pytest.approx(0.01)


def test_targets_and_arguments_are_checked(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    source = builders.save(tmp_path / "gligen.pth", builders.gligen_whole())
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("mine")
    for arguments, message in [
        ({"output": kept}, "already exists"),
        ({"output": kept, "overwrite": True}, "replaces earlier conversions only"),
        ({"output": tmp_path / "no" / "x"}, "its folder does not exist"),
        ({"tokenizer": None}, "holds no tokenizer; give --tokenizer DIR"),
        ({"tokenizer": tmp_path}, "no tokenizer here"),
        ({"dtype": "int8"}, "dtype: 'int8' is unknown"),
        (
            {"format": "instancediffusion"},
            r"this is a GLIGEN checkpoint .*, not an InstanceDiffusion checkpoint",
        ),
        ({"weights": "ema"}, "ema is missing"),
        ({"source": folder}, "already an InstanceDiffusion pipeline folder; give it to --checkpoint"),
        ({"source": folder / "unet"}, "has no model_index.json"),
        ({"source": tmp_path / "gone.pth"}, "cannot be read"),
    ]:
        given: dict[str, Any] = {
            "source": source,
            "output": tmp_path / "out",
            "tokenizer": tokenizer,
            **arguments,
        }
        with pytest.raises(CheckpointError, match=message):
            convert(given.pop("source"), given.pop("output"), **given)
    assert (kept / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()
    convert(source, tmp_path / "out", tokenizer=tokenizer)
    convert(source, tmp_path / "out", tokenizer=tokenizer, overwrite=True)
    with pytest.raises(CheckpointError, match="holds what is to be converted"):
        convert(tmp_path / "out", tmp_path / "out", overwrite=True)
    with pytest.raises(CheckpointError, match=r"end the name in \.safetensors"):
        publish(folder, tmp_path / "x.pth")


def test_a_model_that_the_layout_cannot_express_is_refused(folder: Path, tmp_path: Path) -> None:
    unet = InstanceUNet.from_pretrained(folder, subfolder="unet")
    own = dict(unet.config)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model_index.json").write_text((folder / "model_index.json").read_text())
    for settings, message in [
        ({"norm_num_groups": 16}, "norm_num_groups: the published layout has 32"),
        (
            {"flip_sin_to_cos": False, "norm_eps": 1e-6},
            "cannot express this model's flip_sin_to_cos, norm_eps",
        ),
        ({"attention_head_dim": [4, 4, 4, 4]}, "attention_head_dim: the published layout knows one number"),
    ]:
        unet.register_to_config(**settings)
        unet.save_pretrained(copy / "unet")
        with pytest.raises(CheckpointError, match=message):
            publish(copy, tmp_path / "x.safetensors")
        unet.register_to_config(**{name: own[name] for name in settings})
    assert not (tmp_path / "x.safetensors").exists()


def test_what_the_layout_has_no_place_for_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    unet = InstanceUNet.from_pretrained(folder, subfolder="unet")
    unet.register_to_config(masked_attention="correct", local_mask_radius={"point": 0.1})
    unet.save_pretrained(copy / "unet")
    publish(copy, tmp_path / "whole.safetensors")
    assert "no place for local_mask_radius, masked_attention" in caplog.text
    caplog.clear()
    scheduler = copy / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("scaled_linear", "squaredcos_cap_v2"))
    publish(copy, tmp_path / "alone.safetensors")
    assert "the UNet is written alone" in caplog.text
    parts = {name.split(".")[0] for name in load_file(tmp_path / "alone.safetensors")}
    assert parts == {"model"}


def test_safetensors_with_a_tensor_missing(folder: Path, tokenizer: Path, tmp_path: Path) -> None:
    publish(folder, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(tmp_path / "a.safetensors")
    del tensors["model.scaleu_s_0"]
    save_file(tensors, tmp_path / "b.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"model: .*missing: scaleu_s_0"):
        convert(tmp_path / "b.safetensors", tmp_path / "x", tokenizer=tokenizer)


def test_images_from_the_converted_folder(folder: Path) -> None:
    from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
    from tests.instbench.generators.helpers import instance, layout, request

    generator = InstanceDiffusionGenerator(folder, device="cpu")
    wanted = request(layout("a", instance(0)), canvas=32, num_inference_steps=2, mis=0.0)
    (made,) = generator.generate([wanted])
    picture = np.asarray(made.image)
    assert picture.shape == (32, 32, 3)
    assert picture.std() > 0
