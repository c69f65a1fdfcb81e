"""Pipeline folders of strangers: refused in one line that names the part, before memory is taken or code is run."""

from __future__ import annotations

import json
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instbench.errors import InputError
from instbench.generators.checkpoint import recommended_sampling
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from reference_model.checkpoints.tensors import CheckpointError, check_finite
from tests.reference_model.tiny import tiny_pipeline

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    shutil.copytree(sound, tmp_path / "mine")
    return tmp_path / "mine"


def refusal(folder: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as error:
        _ = InstanceDiffusionGenerator(folder, device="cpu").pipeline
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def change(folder: Path, part: str, edit: Callable[[dict[str, torch.Tensor], str], object]) -> str:
    """Edits the first tensor of two dimensions or more of a part; returns its name."""
    path = folder / part / WEIGHTS[part]
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if tensors[name].dim() >= 2)
    edit(tensors, name)
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def config(folder: Path, part: str, **fields: object) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_sound_folder_loads(folder):
    pipeline = InstanceDiffusionGenerator(folder, device="cpu").pipeline
    assert not any(module.training for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder))


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_broken_weights_are_named_and_counted(folder, part, value):
    def edit(tensors: dict[str, torch.Tensor], name: str) -> None:
        tensors[name].view(-1)[:3] = value

    name = change(folder, part, edit)
    count = load_file(folder / part / WEIGHTS[part])[name].numel()
    assert f"{part}: NaN or infinite weights in {name} (3 of {count})" in refusal(folder)


@pytest.mark.parametrize("part", WEIGHTS)
def test_missing_tensors_are_never_filled_with_random_numbers(folder, part):
    name = change(folder, part, lambda tensors, name: tensors.pop(name))
    message = refusal(folder)
    assert "missing" in message
    assert name in message


@pytest.mark.parametrize("part", WEIGHTS)
def test_wrong_shapes_are_refused(folder, part):
    name = change(folder, part, lambda tensors, name: tensors.update({name: torch.zeros(3, 5)}))
    message = refusal(folder)
    assert part in message
    assert f"of another shape: {name} [3, 5]" in message


@pytest.mark.parametrize("part", WEIGHTS)
def test_pickles_are_not_read_even_alone(folder, part):
    safe = folder / part / WEIGHTS[part]
    pickled = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(safe), folder / part / pickled)
    safe.unlink()
    assert f"holds only {pickled}, a pickle" in refusal(folder)


def header(path: Path, entries: dict[str, object], body: bytes = bytes(64)) -> None:
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


F32 = {"dtype": "F32", "shape": [16]}


@pytest.mark.parametrize(
    "entries",
    [
        {"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}},
        {"a": {**F32, "data_offsets": [0, 64]}, "b": {**F32, "data_offsets": [0, 64]}},
        {"a": {**F32, "data_offsets": [8, 72]}},
        {"a": {**F32, "data_offsets": [0, 32]}},
        {"a": {"dtype": "F32", "shape": [2**62, 16], "data_offsets": [0, 64]}},
        {"a": {"dtype": "PICKLE", "shape": [16], "data_offsets": [0, 64]}},
    ],
    ids=["terabyte", "overlap", "outside", "size", "overflow", "type"],
)
@pytest.mark.parametrize("part", WEIGHTS)
def test_headers_that_lie_are_refused_before_memory_is_taken(folder, part, entries):
    header(folder / part / WEIGHTS[part], entries)
    assert WEIGHTS[part] in refusal(folder)


def test_a_header_longer_than_its_file_is_refused(folder):
    (folder / "unet" / WEIGHTS["unet"]).write_bytes(struct.pack("<Q", 2**40) + b"{}")
    assert "truncated or damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("text_encoder", {"vocab_size": 10**11}),
        ("text_encoder", {"num_hidden_layers": 10**9}),
        ("text_encoder", {"max_position_embeddings": 10**11}),
        ("vae", {"latent_channels": 10**9}),
        ("vae", {"layers_per_block": 10**9}),
        ("unet", {"cross_attention_dim": 10**10}),
        ("unet", {"layers_per_block": 10**9}),
        ("unet", {"convnext_depths": [1, 1, 10**9, 1]}),
    ],
)
def test_configurations_that_ask_for_more_than_the_files_hold_are_refused(folder, part, fields):
    config(folder, part, **fields)
    assert f"{part}/config.json: " in refusal(folder)


@pytest.mark.parametrize(
    ("part", "entry"),
    [
        ("scheduler", ["evil_module", "Evil"]),
        ("vae", ["evil_module", "Evil"]),
        ("vae", ["diffusers", "DiffusionPipeline"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("tokenizer", ["os", "system"]),
        ("tokenizer", "CLIPTokenizer"),
        ("scheduler", None),
    ],
)
def test_an_index_can_name_known_classes_only(folder, part, entry, monkeypatch):
    (folder / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(folder)
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: entry}))
    assert f"model_index.json: field {part} is " in refusal(folder)


def test_an_index_of_weights_cannot_name_files_elsewhere(folder):
    weights = folder / "unet" / WEIGHTS["unet"]
    weights.rename(folder / "elsewhere.safetensors")
    index = {"weight_map": {"conv_in.weight": "../elsewhere.safetensors"}}
    Path(f"{weights}.index.json").write_text(json.dumps(index))
    assert "is no file of this folder" in refusal(folder)


def test_large_finite_weights_pass_whatever_their_sum():
    check_finite({"a": torch.full((4,), 3e38), "b": torch.full((9,), 6e4).half(), "n": torch.arange(3)}, "x")
    with pytest.raises(CheckpointError, match=r"b \(1 of 2\)"):
        check_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_train_timesteps", 10**10),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", "many"),
        ("trained_betas", [0.1] * 100_001),
    ],
)
def test_schedules_without_end_are_refused_before_their_tables_are_made(field, value, folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert f"scheduler_config.json: field {field}" in refusal(folder)


def test_recommended_settings_are_an_object():
    with pytest.raises(InputError, match="sampling_defaults"):
        recommended_sampling({"sampling_defaults": 5})
