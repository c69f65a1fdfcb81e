"""Reads checkpoint files of strangers: `.pth` archives of `torch.save` and safetensors, without running anything."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reference_model.checkpoints.headers import SAFETENSORS_DTYPES
from reference_model.checkpoints.pickles import GlobalName, PickleMachine
from reference_model.checkpoints.tensors import CheckpointError, LazyTensor

__all__ = ["CONFIG_KEY", "open_checkpoint"]

CONFIG_KEY: Final = "config_dict"
"""Where published files keep their training configuration."""

_MAX_PICKLE = 64 * 2**20
_MAX_MEMBERS = 200_000
_MAX_DIMENSIONS = 16
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of files before torch 1.6
_TEXTS = (b"version https://", b"<!DOCTYPE", b"<!doctype", b"<html")
_CHUNK = 16 * 2**20
_DTYPES: Final[dict[str, torch.dtype]] = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: torch.dtype
    size: int


class _Archive:
    """The zip archive of `torch.save`. Members are stored, not compressed, so no size can lie."""

    def __init__(self, archive: zipfile.ZipFile, size: int, classes: tuple[str, ...]) -> None:
        self._zip = archive
        self._classes = classes
        names = _checked_names(archive.infolist(), size)
        pickles = [name for name in names if name.count("/") <= 1 and name.rsplit("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError("a zip archive, but not one that torch.save wrote (no data.pkl)")
        self._root = pickles[0].removesuffix("data.pkl")
        self._members = {member.filename.removeprefix(self._root): member for member in archive.infolist()}
        if "constants.pkl" in self._members or any(name.startswith("code/") for name in self._members):
            raise CheckpointError("a TorchScript program, not a checkpoint; give the weights alone")
        if "byteorder" in self._members and archive.read(self._members["byteorder"]).strip() != b"little":
            raise CheckpointError("written on a big-endian machine; save it again on a little-endian one")
        if self._members["data.pkl"].file_size > _MAX_PICKLE:
            raise CheckpointError(f"its data.pkl is larger than {_MAX_PICKLE >> 20} MiB; refused")

    def content(self) -> Any:
        """Everything in the archive, tensors unread."""
        machine = PickleMachine(self._storage, self._tensor, self._classes)
        return machine.read(self._zip.read(self._members["data.pkl"]))

    def _storage(self, parts: Sequence[Any]) -> _Storage:
        if len(parts) < 5 or parts[0] != "storage" or not isinstance(parts[1], GlobalName):
            raise CheckpointError("the pickle refers to something that is not a storage; refused")
        _, kind, key, _, size = parts[:5]
        dtype = _DTYPES.get(kind.path)
        if dtype is None:
            raise CheckpointError(f"a storage of type {kind.path}; only plain number types are read")
        if not isinstance(key, str) or not re.fullmatch(r"[0-9]+", key) or not _whole(size):
            raise CheckpointError("the pickle refers to a storage by an invalid name or size; refused")
        member = self._members.get(f"data/{key}")
        if member is None or member.file_size != size * dtype.itemsize:
            raise CheckpointError(
                f"storage {key} is missing or not as large as the pickle says; the file is damaged"
            )
        return _Storage(key, dtype, size)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any) -> LazyTensor:
        sizes_ok = (
            isinstance(storage, _Storage)
            and _whole(offset)
            and isinstance(shape, tuple)
            and isinstance(stride, tuple)
            and len(shape) == len(stride) <= _MAX_DIMENSIONS
            and all(map(_whole, (*shape, *stride)))
        )
        if not sizes_ok:
            raise CheckpointError("a tensor with an invalid shape, stride or offset; refused")
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if count else -1
        # A view that repeats elements would take more memory than the file is large.
        if last >= storage.size or count > storage.size:
            raise CheckpointError(
                f"a tensor of shape {shape} reaches beyond its storage of {storage.size}; refused"
            )

        def read() -> Tensor:
            return self._read(storage, offset, shape, stride)

        return LazyTensor(shape, storage.dtype, read)

    def _read(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        raw = torch.empty(storage.size * storage.dtype.itemsize, dtype=torch.uint8)
        target = raw.numpy()
        with self._zip.open(self._members[f"data/{storage.key}"]) as source:
            position = 0
            while position < len(target):
                block = source.read(min(_CHUNK, len(target) - position))
                if not block:
                    raise CheckpointError(
                        f"storage {storage.key} ends early; the file is damaged, copy it again"
                    )
                target[position : position + len(block)] = np.frombuffer(block, dtype=np.uint8)
                position += len(block)
            source.read(1)  # at the end the checksum is compared
        flat = raw.view(storage.dtype)
        view = torch.as_strided(flat, shape, stride, offset)
        return (
            view
            if view.is_contiguous() and view.numel() == storage.size
            else view.clone(memory_format=torch.contiguous_format)
        )


def _checked_names(members: Sequence[zipfile.ZipInfo], size: int) -> list[str]:
    """Names of the members of an archive of `size` bytes.

    Raises:
        CheckpointError: If one has a path that leads out, is compressed, encrypted, there twice or too large.
    """
    if len(members) > _MAX_MEMBERS:
        raise CheckpointError(f"{len(members)} members in the archive, more than {_MAX_MEMBERS}; refused")
    names = [member.filename for member in members]
    for name in names:
        if name.startswith(("/", "\\")) or "\\" in name or ":" in name or ".." in name.split("/"):
            raise CheckpointError(f"member {name!r} of the archive has a path that leads out of it; refused")
    if len(set(names)) != len(names):
        raise CheckpointError("the archive has two members of one name; refused")
    for member in members:
        if member.flag_bits & 0x1:
            raise CheckpointError(f"member {member.filename!r} is encrypted; refused")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(
                f"member {member.filename!r} is compressed, which torch.save never does; refused"
            )
    if sum(member.file_size for member in members) > size:
        raise CheckpointError("the members are larger than the file; refused")
    return names


def _whole(value: Any) -> bool:
    """Whether a value is an integer that can be a size."""
    return type(value) is int and 0 <= value < 2**62


@contextmanager
def open_checkpoint(path: Path, *, classes: tuple[str, ...] = ()) -> Iterator[Mapping[str, Any]]:
    """Opens a checkpoint file for reading; while it is open, its tensors can be read one by one.

    Args:
        path: A `.pth`/`.pt`/`.ckpt` file that `torch.save` wrote (torch 1.6 or later), or a safetensors file. A
            safetensors file whose metadata has a `config_dict` is split into its parts at the first dot.
        classes: Packages, each ending in a dot, whose objects may be in the file; see `PickleMachine`.

    Yields:
        The content: tensors are `LazyTensor`, objects of OmegaConf are `Placeholder`.

    Raises:
        CheckpointError: If the file is missing, of another kind, damaged or truncated, or asks for code to be run.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is a folder, a pipe or a device; give a checkpoint file")
    try:
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        if start.startswith(b"PK"):
            with _zip(path) as archive:
                yield _mapping(_Archive(archive, path.stat().st_size, classes).content())
        elif start and not start.startswith(_TEXTS) and (path.suffix == ".safetensors" or start[8:9] == b"{"):
            with _safetensors(path) as handle:
                yield _safetensors_content(handle)
        else:
            raise CheckpointError(_foreign(start))
    except (CheckpointError, zipfile.BadZipFile, SafetensorError) as error:
        raise CheckpointError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CheckpointError) else f"damaged ({text}); copy or download it again"


def _foreign(start: bytes) -> str:
    """What a file is that is neither a zip archive nor safetensors."""
    if not start:
        return "the file is empty; copy or download it again"
    if start.startswith(_LEGACY_TORCH[: len(start)]):
        return "written by torch before 1.6, a bare pickle; load it where it is trusted and save it as safetensors"
    if start[:1] == b"\x80":
        return "a bare pickle, which could run code; refused. Give a .safetensors or a file of torch.save"
    if start.startswith(_TEXTS):
        return "a web page or a Git LFS pointer, not the file itself; download it again"
    return "neither an archive of torch.save nor safetensors; give a .pth or .safetensors checkpoint"


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"truncated at {path.stat().st_size} bytes (no directory at its end); copy or download it again"
        ) from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"damaged ({error}); copy or download it again") from None


def _safetensors(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError, RuntimeError) as error:  # the last where the file cannot be mapped
        raise CheckpointError(f"truncated or damaged ({error}); copy or download it again") from None


def _mapping(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError("holds no dict of names; give a checkpoint")
    return content


def _safetensors_content(handle: Any) -> Mapping[str, Any]:
    flat: dict[str, LazyTensor] = {}
    for name in handle.keys():  # noqa: SIM118 - not a dict
        view = handle.get_slice(name)
        kind = view.get_dtype()
        if kind not in SAFETENSORS_DTYPES:
            raise CheckpointError(f"tensor {name} has the type {kind}, which is not supported")

        def read(name: str = name) -> Tensor:
            tensor: Tensor = handle.get_tensor(name)
            return tensor

        flat[name] = LazyTensor(tuple(view.get_shape()), SAFETENSORS_DTYPES[kind], read)
    metadata = handle.metadata() or {}
    if CONFIG_KEY not in metadata:
        return flat
    try:
        config = json.loads(metadata[CONFIG_KEY])
    except (ValueError, RecursionError):
        raise CheckpointError(f"its {CONFIG_KEY} is not JSON; write the file again") from None
    parts: dict[str, Any] = {CONFIG_KEY: config}
    for name, tensor in flat.items():
        part, _, rest = name.partition(".")
        if part == CONFIG_KEY:
            raise CheckpointError(f"tensor {name}: a part called {CONFIG_KEY} cannot hold tensors; refused")
        parts.setdefault(part, {})[rest] = tensor
    return parts
