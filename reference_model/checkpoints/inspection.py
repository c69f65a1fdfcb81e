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

from reference_model.checkpoints.headers import TensorFacts, facts_of, misfits
from reference_model.checkpoints.tensors import CheckpointError

__all__ = ["SPARE", "check_claims", "inspect_component", "read_facts"]

_NAMES: Final = ("diffusion_pytorch_model", "model")
SPARE: Final = 2**24
"""Numbers that a model may have beyond its file: tables that it computes itself."""
_MAX_INTEGER: Final = 2**24
"""No size, count or word number of a configuration is larger; libraries make lists as long as some of them."""
_MAX_NESTING: Final = 16

_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def inspect_component(folder: Path, kind: Any) -> None:
    """Checks that the files of a component can fill the model that its configuration describes.

    Args:
        folder: Folder with ``config.json`` and safetensors, as `save_pretrained` writes it.
        kind: Class of the model, of diffusers or transformers.

    Raises:
        CheckpointError: If there are no safetensors (pickles are not read), a header is damaged or claims more than
            its file holds, the configuration asks for more numbers or layers than there are, or a tensor has
            another shape or kind of number than the model's of that name.
    """
    facts = read_facts(folder)
    path = folder / "config.json"
    config = _config(path)

    def build() -> Any:
        try:
            return _build(kind, config)
        except Exception as error:  # whatever a strange configuration makes the libraries raise
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(f"{path}: no {kind.__name__} can be built ({reason})") from None

    model = check_claims(build, config, path, facts)
    wanted = model.state_dict()
    # Libraries give old names their new ones when they load; what has its name already can be compared here.
    known = {name: fact for name, fact in facts.items() if name in wanted}
    odd = misfits({name: wanted[name] for name in known}, known)
    if odd:
        raise CheckpointError(f"{folder}: weights do not fit config.json: {odd}; give a matching pair")


def check_claims(
    build: Callable[[], Any], config: Mapping[str, Any], path: Path, facts: Mapping[str, TensorFacts]
) -> Any:
    """Checks that a configuration asks for no more than its weights hold.

    Args:
        build: Builds the model; called where tensors have sizes but no memory.
        config: The configuration.
        path: Its file, for messages.
        facts: The weights by name, from `read_facts` or `facts_of`.

    Returns:
        The model, without memory.

    Raises:
        CheckpointError: If it asks for more numbers, or for more layers than there are tensors.
    """
    _check_sizes(path, config, len(facts))
    held = sum(math.prod(fact.shape) for fact in facts.values())
    with torch.device("meta"):
        model = build()
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if asked > held + SPARE:
        raise CheckpointError(
            f"{path}: asks for {asked} numbers, but the safetensors hold {held}; the files do not belong together"
        )
    return model


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


def _check_sizes(path: Path, config: Mapping[str, Any], tensors: int, depth: int = 0) -> None:
    """A model cannot have more layers than tensors; building thousands of millions would take for ever."""
    if depth > _MAX_NESTING:
        raise CheckpointError(f"{path}: nested deeper than {_MAX_NESTING} objects; no configuration is")
    for name, value in config.items():
        if isinstance(value, dict):
            _check_sizes(path, value, tensors, depth + 1)
            continue
        counts = value if isinstance(value, list) else [value]
        numbers = _integers(counts)
        if any(abs(one) > _MAX_INTEGER for one in numbers):
            raise CheckpointError(
                f"{path}: field {str(name)[:60]} is larger than {_MAX_INTEGER}, which no size is; refused"
            )
        most = max([len(counts), *numbers] if "layers" in name or "depth" in name else [len(counts)])
        if most > max(tensors, 8):
            raise CheckpointError(
                f"{path}: field {name} asks for {most} layers, but there are {tensors} tensors"
            )


def _integers(values: list[Any]) -> list[int]:
    nested = [one for value in values if isinstance(value, list) for one in _integers(value)]
    return [*nested, *(value for value in values if type(value) is int)]


def read_facts(folder: Path) -> dict[str, TensorFacts]:
    """Shapes and types of all tensors of a component, by name, from the headers of its safetensors files.

    Raises:
        CheckpointError: If there are none, or a header does not fit its file.
    """
    facts: dict[str, TensorFacts] = {}
    for path in _weight_files(folder):
        facts |= facts_of(path)
    return facts


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
