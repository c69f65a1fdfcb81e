"""The reader for files of strangers: what it reads, and that nothing in a file can run."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import save_file

from reference_model.checkpoints.config import plain_config, read_yaml
from reference_model.checkpoints.pickles import PickleMachine, Placeholder
from reference_model.checkpoints.restricted import open_checkpoint
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, materialise

SETTINGS = {
    "model": {
        "params": {"channel_mult": [1, 2, 4], "rate": 5e-5, "use": True, "none": None, "name": "${other}"}
    },
    "other": "x",
}


def archive(path: Path, data: bytes, members: dict[str, bytes] | None = None, **options: Any) -> Path:
    """An archive as `torch.save` lays it out, with any pickle in it."""
    with zipfile.ZipFile(path, "w", **options) as handle:
        handle.writestr("archive/data.pkl", data)
        for name, content in (members or {}).items():
            handle.writestr(name, content)
    return path


def machine() -> PickleMachine:
    return PickleMachine(lambda parts: tuple(parts), lambda *parts: parts)


def everything(path: Path) -> Any:
    with open_checkpoint(path) as content:
        return {
            name: {key: tensor.read() for key, tensor in part.items()} if isinstance(part, dict) else part
            for name, part in content.items()
        }


def test_tensors_arrive_exactly(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    tensors = collections.OrderedDict(
        whole=base.reshape(2, 3, 4),
        transposed=base.reshape(4, 6).T,
        view=base[5:11:2],
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        half=torch.randn(5).half(),
        brain=torch.randn(5).bfloat16(),
        integers=torch.arange(4),
        flags=torch.tensor([True, False]),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )
    module = torch.nn.Linear(2, 3)
    torch.save({"model": tensors, "linear": module.state_dict()}, tmp_path / "a.pth")
    found = everything(tmp_path / "a.pth")
    assert set(found["model"]) == set(tensors)
    for name, tensor in {**tensors, **module.state_dict()}.items():
        read = {**found["model"], **found["linear"]}[name]
        assert read.dtype == tensor.dtype
        assert read.shape == tensor.shape
        assert torch.equal(read, tensor)
        assert read.is_contiguous()


@pytest.mark.parametrize("as_attributes", [True, False])
def test_omegaconf_becomes_plain_values(tmp_path: Path, as_attributes: bool) -> None:
    config = OmegaConf.create(SETTINGS)
    config.update({"list_of_dicts": [{"a": 1}], "flag": False})
    torch.save({"config_dict": vars(config) if as_attributes else config}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as content:
        plain = plain_config(content["config_dict"])
    assert plain == {**SETTINGS, "list_of_dicts": [{"a": 1}], "flag": False}
    assert plain_config(SETTINGS) == SETTINGS


def test_a_config_that_contains_itself_or_explodes_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    many: Any = 1
    for _ in range(40):
        many = [many, many]
    for config in (loop, {"many": many}):
        with pytest.raises(CheckpointError, match="too large or too deeply nested"):
            plain_config(config)
    with pytest.raises(CheckpointError, match="is not a training configuration"):
        plain_config([1, 2])
    assert plain_config({"path": Placeholder("pathlib.PosixPath", ("a",)), "n": 1}) == {"n": 1}


def test_yaml_is_read_without_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model: {params: {a: [1, 2]}}")
    assert read_yaml(path) == {"model": {"params": {"a": [1, 2]}}}
    for text in ("!!python/object/apply:os.system ['true']", "- 1", "a: ["):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"a\.yaml"):
            read_yaml(path)


class Reduced:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def gadgets(marker: Path) -> dict[str, bytes]:
    """Pickles that would leave a mark if anything in them ran."""
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    direct = {
        "os.system": Reduced(os.system, touch),
        "eval": Reduced(eval, code),
        "exec": Reduced(exec, code),
        "getattr": Reduced(getattr, Reduced(__import__, "os"), "system"),
        "open": Reduced(open, str(marker), "w"),
        "nested": {"model": [{"weight": Reduced(os.system, touch)}]},
        "in a config": {"config_dict": OmegaConf.create({"a": 1}), "x": Reduced(os.mkdir, str(marker))},
        "torch.load": Reduced(torch.load, str(marker)),
        "storage": Reduced(torch.storage._load_from_bytes, b"x"),
    }
    pickles = {name: pickle.dumps(value, 2) for name, value in direct.items()}
    pickles |= {f"{name}, protocol 4": pickle.dumps(value, 4) for name, value in direct.items()}
    text = f"cos\nsystem\n(S'{touch}'\ntR.".encode()
    pickles["protocol 0"] = text
    pickles["instance"] = f"(S'{touch}'\nios\nsystem\n.".encode()
    pickles["object"] = f"(cos\nsystem\nS'{touch}'\no.".encode()
    pickles["extension"] = b"\x80\x02\x82\x01."
    # A known name, but made an object of, or called through an attribute path.
    pickles["known name as an object"] = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)\x81."
    pickles["dotted name"] = b"\x80\x04\x8c\x08builtins\x8c\x0cdict.__mro__\x93."
    pickles["module of an allowed class"] = b"\x80\x02comegaconf.base\nsys\n."
    pickles["build on a class"] = b"\x80\x02cbuiltins\ndict\n}b."
    pickles["call of a result"] = b"\x80\x02cbuiltins\ndict\n)R)R."
    return pickles


NAMES = list(gadgets(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_pickle_runs(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = archive(tmp_path / "a.pth", gadgets(marker)[name])
    with pytest.raises(CheckpointError) as caught, open_checkpoint(path):
        pass
    assert not marker.exists()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_refused_name_is_said(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", pickle.dumps(Reduced(os.system, "true"), 2))
    refused = r"'posix\.system', which has no place in a checkpoint"
    with pytest.raises(CheckpointError, match=refused), open_checkpoint(path):
        pass


def _tensor_pickle(storage_size: int, offset: int, shape: tuple[Any, ...], stride: tuple[Any, ...]) -> bytes:
    """A dict with one float tensor on storage 0."""

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", storage_size) if value == "STORAGE" else None

    stream = io.BytesIO()
    call = Reduced(torch._utils._rebuild_tensor_v2, "STORAGE", offset, shape, stride, False, None)
    Writer(stream, 2).dump({"w": call})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((4, 0, (5,), (1,)), "reaches beyond its storage"),
        ((4, 2, (3,), (1,)), "reaches beyond its storage"),
        ((4, 0, (1_000_000_000,), (0,)), "reaches beyond its storage"),
        ((4, 0, (2,), (3,)), None),
        ((4, -1, (2,), (1,)), "invalid shape, stride or offset"),
        ((4, 0, (-1,), (1,)), "invalid shape, stride or offset"),
        ((4, 0, (2, 2), (1,)), "invalid shape, stride or offset"),
        ((4, 0, (1,) * 20, (1,) * 20), "invalid shape, stride or offset"),
        ((4, 0, (2.0,), (1,)), "invalid shape, stride or offset"),
        ((10**15, 0, (1,), (1,)), "storage 0 is missing or not as large"),
        ((5, 0, (1,), (1,)), "storage 0 is missing or not as large"),
    ],
)
def test_sizes_are_checked_before_memory_is_taken(numbers: Any, message: str | None, tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.pth", _tensor_pickle(*numbers), {"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)}
    )
    if message is None:
        with open_checkpoint(path) as content:
            assert content["w"].read().tolist() == [1.0, 4.0]
        return
    with pytest.raises(CheckpointError, match=message), open_checkpoint(path):
        pass


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "archive/../../out", "C:/out", "a\\..\\out", "archive/data/../../../x"]
)
def test_paths_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", pickle.dumps({}, 2), {name: b"x"})
    with pytest.raises(CheckpointError, match="leads out of it"), open_checkpoint(path):
        pass


def test_other_archives_are_named(tmp_path: Path) -> None:
    empty = pickle.dumps({}, 2)
    zeros = {"archive/data/0": bytes(10**6)}
    compressed = archive(tmp_path / "bomb.pth", empty, zeros, compression=zipfile.ZIP_DEFLATED)
    script = archive(tmp_path / "script.pth", empty, {"archive/constants.pkl": b"x"})
    endian = archive(tmp_path / "endian.pth", empty, {"archive/byteorder": b"big"})
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as handle:
        handle.writestr("readme.txt", "x")
    for path, message in (
        (compressed, "is compressed, which torch.save never does"),
        (script, "a TorchScript program"),
        (endian, "big-endian"),
        (tmp_path / "other.zip", "not one that torch.save wrote"),
    ):
        with pytest.raises(CheckpointError, match=message), open_checkpoint(path):
            pass


def test_other_files_are_named(tmp_path: Path) -> None:
    legacy = tmp_path / "legacy.pth"
    torch.save({"a": torch.zeros(2)}, legacy, _use_new_zipfile_serialization=False)
    cases = {
        "empty.pth": (b"", "the file is empty"),
        "bare.pkl": (pickle.dumps({"a": 1}), "a bare pickle"),
        "page.pth": (b"<!DOCTYPE html><html>", "a web page or a Git LFS pointer"),
        "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1", "a web page or a Git LFS pointer"),
        "text.pth": (b"hello", "neither an archive"),
        "broken.safetensors": (b"\xff" * 20, "truncated or damaged"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message), open_checkpoint(tmp_path / name):
            pass
    with pytest.raises(CheckpointError, match=r"before 1\.6, a bare pickle"), open_checkpoint(legacy):
        pass
    with pytest.raises(CheckpointError, match="cannot be read"), open_checkpoint(tmp_path / "gone"):
        pass


def test_truncation_and_damage_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "a.pth")
    save_file({"a": torch.arange(1000.0)}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="truncated"), open_checkpoint(tmp_path / f"cut-{name}"):
            pass
    content = bytearray((tmp_path / "a.pth").read_bytes())
    position = content.find(struct.pack("<2f", 500.0, 501.0))
    content[position] ^= 0xFF
    (tmp_path / "flipped.pth").write_bytes(content)
    with (
        pytest.raises(CheckpointError, match=r"flipped\.pth: damaged \(Bad CRC"),
        open_checkpoint(tmp_path / "flipped.pth") as found,
    ):
        found["a"].read()


def test_safetensors_is_flat_unless_it_says_otherwise(tmp_path: Path) -> None:
    tensors = {"model.a.b": torch.ones(2), "diffusion.betas": torch.zeros(3).half()}
    save_file(tensors, tmp_path / "flat.safetensors")
    save_file(tensors, tmp_path / "parts.safetensors", metadata={"config_dict": '{"x": [1]}'})
    save_file(tensors, tmp_path / "bad.safetensors", metadata={"config_dict": "{"})
    with open_checkpoint(tmp_path / "flat.safetensors") as content:
        assert set(content) == set(tensors)
        assert (content["model.a.b"].shape, content["model.a.b"].dtype) == ((2,), torch.float32)
    with open_checkpoint(tmp_path / "parts.safetensors") as content:
        assert content["config_dict"] == {"x": [1]}
        assert content["model"]["a.b"].read().tolist() == [1.0, 1.0]
        assert content["diffusion"]["betas"].dtype == torch.float16
    with (
        pytest.raises(CheckpointError, match="config_dict is not JSON"),
        open_checkpoint(tmp_path / "bad.safetensors"),
    ):
        pass


def test_values_are_checked() -> None:
    def lazy(*values: float, dtype: torch.dtype = torch.float32) -> LazyTensor:
        return LazyTensor((len(values),), dtype, lambda: torch.tensor(values, dtype=dtype))

    assert materialise({"a": lazy(1, 2)}, "model", torch.float16)["a"].dtype == torch.float16
    with pytest.raises(ValueError, match=r"model: NaN or infinite weights in b \(1 of 1\), c \(1 of 1\);"):
        materialise({"a": lazy(1), "b": lazy(float("nan")), "c": lazy(float("-inf"))}, "model")
    with pytest.raises(ValueError, match=r"model: too large for torch\.float16: a"):
        materialise({"a": lazy(1e5)}, "model", torch.float16)
    with pytest.raises(ValueError, match=r"wrong dtype.*a \(torch\.int64\)"):
        materialise({"a": lazy(1, dtype=torch.int64)}, "model")


numbers = st.integers() | st.floats(allow_nan=False)
simple = st.none() | st.booleans() | numbers | st.text(max_size=5) | st.binary(max_size=5)
data = st.recursive(
    simple,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(data, st.sampled_from([3, 4, 5]))
def test_plain_data_is_read_as_pickle_does(value: Any, protocol: int) -> None:
    assert machine().read(pickle.dumps(value, protocol)) == value


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60) | st.builds(lambda tail: b"\x80\x02" + tail, st.binary(max_size=60)))
def test_any_bytes_give_a_value_or_an_error_of_ours(content: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        machine().read(content)
