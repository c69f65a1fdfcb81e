"""Looks at the folder of a component before it is loaded: what its files hold against what its configuration asks for.

Nothing is allocated: sizes come from the headers of the safetensors files, and the model is built without memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from reference_model.checkpoints.tensors import CheckpointError

__all__ = ["SPARE", "check_claims", "inspect_component", "read_shapes", "shapes_of"]

_NAMES: Final = ("diffusion_pytorch_model", "model")
SPARE: Final = 2**24
"""Numbers that a model may have beyond its file: tables that it computes itself."""

_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def inspect_component(folder: Path, kind: Any) -> None:
    """Checks that the files of a component can fill the model that its configuration describes.

    Args:
        folder: Folder with ``config.json`` and safetensors, as `save_pretrained` writes it.
        kind: Class of the model, of diffusers or transformers.

    Raises:
        CheckpointError: If there are no safetensors (pickles are not read), a header is damaged or claims more than
            its file holds, or the configuration asks for more numbers or layers than there are.
    """
    shapes = read_shapes(folder)
    path = folder / "config.json"
    config = _config(path)

    def build() -> Any:
        try:
            return _build(kind, config)
        except Exception as error:  # whatever a strange configuration makes the libraries raise
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"{path}: no {kind.__name__} can be built ({reason})") from None

    check_claims(build, config, path, shapes)


def check_claims(
    build: Callable[[], Any], config: Mapping[str, Any], path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Checks that a configuration asks for no more than its weights hold.

    Args:
        build: Builds the model; called where tensors have sizes but no memory.
        config: The configuration.
        path: Its file, for messages.
        shapes: Shapes of the weights by name.

    Raises:
        CheckpointError: If it asks for more numbers, or for more layers than there are tensors.
    """
    _check_layers(path, config, len(shapes))
    held = sum(math.prod(shape) for shape in shapes.values())
    with torch.device("meta"):
        model = build()
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if asked > held + SPARE:
        raise CheckpointError(
            f"{path}: asks for {asked} numbers, but the safetensors hold {held}; the files do not belong together"
        )


def _build(kind: Any, config: Mapping[str, Any]) -> Any:
    if hasattr(kind, "load_config"):  # of diffusers
        return kind.from_config(config)
    return kind(kind.config_class.from_dict(dict(config)))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; copy the checkpoint again")
    return config


def _check_layers(path: Path, config: Mapping[str, Any], tensors: int) -> None:
    """A model cannot have more layers than tensors; building thousands of millions would take for ever."""
    for name, value in config.items():
        if isinstance(value, dict):
            _check_layers(path, value, tensors)
            continue
        counts = value if isinstance(value, list) else [value]
        most = max(
            [len(counts), *_integers(counts)] if "layers" in name or "depth" in name else [len(counts)]
        )
        if most > max(tensors, 8):
            raise CheckpointError(
                f"{path}: field {name} asks for {most} layers, but there are {tensors} tensors"
            )


def _integers(values: list[Any]) -> list[int]:
    nested = [one for value in values if isinstance(value, list) for one in _integers(value)]
    return [*nested, *(value for value in values if type(value) is int)]


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a component, by name, from the headers of its safetensors files.

    Raises:
        CheckpointError: If there are none, or a header does not fit its file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(folder):
        shapes |= shapes_of(path)
    return shapes


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of one safetensors file by name.

    Raises:
        CheckpointError: If the header does not fit the file: offsets that overlap, leave gaps or lie outside.
    """
    try:
        with safe_open(str(path), framework="pt") as handle:
            return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path}: truncated or damaged ({reason}); copy or download it again") from None


def _weight_files(folder: Path) -> list[Path]:
    for name in _NAMES:
        single, index = folder / f"{name}.safetensors", folder / f"{name}.safetensors.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _parts(folder, index)
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLES)
    what = f"only {pickles[0]}, a pickle, which could run code" if pickles else "no weights"
    raise CheckpointError(f"{folder}: holds {what}; give safetensors (save_pretrained writes them)")


def _parts(folder: Path, index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index}: no index of weights; copy the checkpoint again") from None
    for name in names:
        # Names out of data become paths here, so they must be plain names in this folder.
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: names {str(name)[:60]!r}, which is no file of this folder; refused"
            )
    return [folder / name for name in sorted(names)]
