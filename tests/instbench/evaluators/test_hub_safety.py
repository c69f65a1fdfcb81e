"""Folders of transformers from strangers: files and settings are compared before memory is taken."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from instbench.errors import InputError
from instbench.evaluators.loading import load_detector
from tests.instbench.evaluators.builders import save_mask2former, save_owl


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return {"mask2former": save_mask2former(folder / "m"), "owlv2": save_owl(folder / "o")}


@pytest.fixture
def copied(sound, tmp_path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(sound[name], tmp_path / name))


def refusal(folder: Path) -> str:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as error:
        load_detector(folder, device="cpu")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"
    assert time.process_time() - start < 20
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def change(path: Path, keys: tuple[str, ...], value: Any) -> None:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("mask2former", ("hidden_dim",), 2**20),
        ("mask2former", ("num_queries",), 10**12),
        ("mask2former", ("num_labels",), 10**9),
        ("mask2former", ("decoder_layers",), 10**7),
        ("mask2former", ("encoder_layers",), 10**7),
        ("mask2former", ("dim_feedforward",), 2**23),
        ("mask2former", ("backbone_config", "embed_dim"), 2**16),
        ("mask2former", ("backbone_config", "depths"), [10**8, 1, 1, 1]),
        ("mask2former", ("backbone_config", "image_size"), 1e308),
        ("mask2former", ("backbone_config",), None),
        ("mask2former", ("use_timm_backbone",), True),
        ("mask2former", ("backbone",), "owner/elsewhere"),
        ("mask2former", ("quantization_config",), {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("mask2former", ("attn_implementation",), "owner/kernel"),
        ("mask2former", ("auto_map",), {"AutoModel": "modeling.Evil"}),
        ("mask2former", ("id2label",), {"0": "cat", "7": "dog"}),
        ("mask2former", ("id2label",), {"x": "cat"}),
        ("owlv2", ("text_config", "vocab_size"), 10**11),
        ("owlv2", ("text_config", "vocab_size"), 10**7),
        ("owlv2", ("text_config", "num_hidden_layers"), 10**6),
        ("owlv2", ("vision_config", "image_size"), 2**23),
        ("owlv2", ("vision_config", "patch_size"), 0),
        ("owlv2", ("vision_config", "hidden_size"), -32),
        ("owlv2", ("vision_config", "hidden_size"), float("nan")),
        ("owlv2", ("projection_dim",), "wide"),
    ],
)
def test_configurations_that_ask_for_too_much(name, keys, value, copied):
    folder = copied(name)
    change(folder / "config.json", keys, value)
    refusal(folder)


@pytest.mark.parametrize("size", [10**9, float("inf"), 10**400])
def test_preprocessing_that_would_make_enormous_images(size, copied):
    folder = copied("mask2former")
    path = next(path for path in folder.glob("*processor_config.json"))
    change(path, ("size",), {"shortest_edge": size, "longest_edge": size})
    assert path.name in refusal(folder)


def test_missing_superfluous_and_other_tensors_are_named(copied):
    folder = copied("mask2former")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    first = "class_predictor.weight"

    def message(**changed: torch.Tensor | None) -> str:
        new = {**tensors, **changed}
        save_file({k: v for k, v in new.items() if v is not None}, path, metadata={"format": "pt"})
        return refusal(folder)

    assert "missing or do not fit: class_predictor.bias" in message(**{"class_predictor.bias": None})
    assert "does not have: backdoor.weight" in message(**{"backdoor.weight": torch.zeros(3)})
    assert f"of another shape: {first} [2, 2] for [3, 32]" in message(**{first: torch.zeros(2, 2)})
    quantised = torch.zeros(tensors[first].shape, dtype=torch.int8)
    assert f"of another type: {first} (torch.int8)" in message(**{first: quantised})
    assert f"NaN or infinite weights in {first}" in message(**{first: tensors[first] * float("nan")})
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    # Older versions saved tables of whole numbers that the model computes itself.
    save_file(halves | {"old.relative_position_index": torch.zeros(4, dtype=torch.int64)}, path)
    assert load_detector(folder, device="cpu").categories == ("cat", "dog")


def header(entries: dict[str, Any], body: int) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        header({"a": _tensor([2], 0, 8), "b": _tensor([2], 4, 12)}, 12),
        header({"a": _tensor([2], 0, 8)}, 4),
        header({"a": _tensor([2], 0, 8)}, 800),
        header({"a": _tensor([2**40], 0, 2**42)}, 8),
        header({"a": _tensor([2**62, 2**62], 0, 8)}, 8),
        header({"a": _tensor([2], 8, 0)}, 8),
        header({"a": _tensor([-2], 0, 8)}, 8),
        header({"a": _tensor([2], 0, 8, "F4")}, 8),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"",
        b"PK\x03\x04",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
    ids=range(15),
)
def test_headers_that_lie(content, copied):
    folder = copied("owlv2")
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refusal(folder)


def test_a_sparse_file_of_a_terabyte_is_neither_hashed_nor_read(copied):
    folder = copied("owlv2")
    path = folder / "model.safetensors"
    text = json.dumps({"big": _tensor([2**38], 0, 2**40)}).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + 2**40)
    said = refusal(folder)  # where so much address space can be had, the tensors are compared
    assert "missing or do not fit" in said or "truncated or damaged" in said


def test_an_index_cannot_point_elsewhere(copied):
    folder = copied("owlv2")
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    assert "no file of this folder" in refusal(folder)
