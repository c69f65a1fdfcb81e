"""Looks at the folder of a component before it is loaded: what its files hold against what its configuration asks for.

Nothing is allocated: sizes come from the headers of the safetensors files, and the model is built without memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from reference_model.checkpoints.tensors import CheckpointError

__all__ = ["inspect_component", "read_shapes"]

_NAMES: Final = ("diffusion_pytorch_model", "model")
_SPARE: Final = 2**24  # numbers that a model may have beyond its file: tables that it computes itself
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
    config = _config(folder)
    _check_layers(folder, config, len(shapes))
    held = sum(math.prod(shape) for shape in shapes.values())
    try:
        with torch.device("meta"):
            model = _build(kind, config)
        asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    except Exception as error:  # whatever a strange configuration makes the libraries raise
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{folder / 'config.json'}: no {kind.__name__} can be built ({reason})"
        ) from None
    if asked > held + _SPARE:
        raise CheckpointError(
            f"{folder / 'config.json'}: asks for {asked} numbers, but the safetensors hold {held}; "
            "the files do not belong together"
        )


def _build(kind: Any, config: Mapping[str, Any]) -> Any:
    if hasattr(kind, "load_config"):  # of diffusers
        return kind.from_config(config)
    return kind(kind.config_class.from_dict(dict(config)))


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; copy the checkpoint again")
    return config


def _check_layers(folder: Path, config: Mapping[str, Any], tensors: int) -> None:
    """A model cannot have more layers than tensors; building thousands of millions would take for ever."""
    for name, value in config.items():
        counts = value if isinstance(value, list) else [value]
        most = max(
            [len(counts), *_integers(counts)] if "layers" in name or "depth" in name else [len(counts)]
        )
        if most > max(tensors, 8):
            raise CheckpointError(
                f"{folder / 'config.json'}: field {name} asks for {most} layers, but there are {tensors} tensors"
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
        try:
            # Offsets that overlap, leave gaps or lie outside the file are refused here, before anything is read.
            with safe_open(str(path), framework="pt") as handle:
                shapes |= {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"{path}: truncated or damaged ({reason}); copy or download it again"
            ) from None
    return shapes


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
