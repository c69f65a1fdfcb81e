"""Evaluators of strangers: broken weights are named, and no configuration makes us take memory that its file lacks."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from instbench.errors import InputError
from instbench.evaluators.loading import load_detector, load_features, load_image_text, shipped_folder

LOADERS: dict[str, tuple[Callable[..., Any], str]] = {
    "shapes-yolo": (load_detector, "model.safetensors"),
    "shapes-clip": (load_image_text, "open_clip_model.safetensors"),
    "shapes-features": (load_features, "model.safetensors"),
}


def refusal(name: str, folder: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as error:
        LOADERS[name][0](folder, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "kilobytes"
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def copied(tmp_path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(shipped_folder(name), tmp_path / name))

    return copy


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_broken_weights_are_named_and_counted(name, value, copied):
    folder = copied(name)
    path = folder / LOADERS[name][1]
    tensors = load_file(path)
    first = next(one for one in sorted(tensors) if tensors[one].dim() >= 2)
    tensors[first].view(-1)[:2] = value
    save_file(tensors, path, metadata={"format": "pt"})
    assert f"NaN or infinite weights in {first} (2 of {tensors[first].numel()})" in refusal(name, folder)


def _set(folder: Path, file: str, keys: tuple[Any, ...], value: Any) -> None:
    path = folder / file
    content = yaml.safe_load(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content) if file.endswith(".json") else yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("name", "file", "keys", "value"),
    [
        ("shapes-features", "config.json", ("hidden_sizes", 1), 10**6),
        ("shapes-features", "config.json", ("depths", 0), 10**9),
        ("shapes-clip", "open_clip_config.json", ("model_cfg", "text_cfg", "vocab_size"), 10**11),
        ("shapes-clip", "open_clip_config.json", ("model_cfg", "vision_cfg", "layers"), 10**9),
        ("shapes-yolo", "model.yaml", ("backbone", 0, 3), [2**16, 4001, 2]),
        ("shapes-yolo", "model.yaml", ("backbone", 0, 1), 10**9),
        ("shapes-yolo", "model.yaml", ("depth_multiple",), 10**9),
    ],
)
def test_claims_beyond_the_file_are_refused_before_memory_is_taken(name, file, keys, value, copied):
    folder = copied(name)
    _set(folder, file, keys, value)
    assert str(folder / file) in refusal(name, folder)


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_headers_are_named(name, copied):
    folder = copied(name)
    path = folder / LOADERS[name][1]
    path.write_bytes(path.read_bytes()[:-10])
    assert LOADERS[name][1] in refusal(name, folder)


def test_what_is_sound_loads(copied):
    for name, (load, _) in LOADERS.items():
        load(copied(name), device="cpu")
    assert torch.zeros(1).device.type == "cpu", "the place without memory is left again"
