"""Folders of transformers models: on disk, or fetched from the Hugging Face hub where a network is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.evaluators.folders import file_hashes, one_line, read_json

__all__ = [
    "MAX_SIDE",
    "is_hub_name",
    "load_network",
    "load_pretrained",
    "load_processor",
    "model_folder",
    "model_hashes",
    "model_type",
]

MAX_SIDE = 8192
"""Pixels along a side that an image is made at most before a network sees it."""

_MAX_NESTING = 16
_SIZES = frozenset({"height", "width", "shortest_edge", "longest_edge", "size", "crop_size", "size_divisor"})
_ELSEWHERE = (
    *("use_timm_backbone", "use_pretrained_backbone", "backbone", "quantization_config", "auto_map"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
)

_HASHED = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


def is_hub_name(name: str) -> bool:
    """Whether a text has the form ``owner/name`` of the hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def model_folder(name_or_folder: str | Path) -> Path:
    """The folder of a model: itself, or a snapshot of a hub repository.

    ``HF_HUB_OFFLINE=1`` keeps it to what is in the cache. Pickled weights are never fetched.

    Raises:
        InputError: There is no such folder, or the hub cannot be reached and has not been before.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    if not is_hub_name(str(name_or_folder)):
        raise InputError(f"{name_or_folder}: no such folder; give a folder with config.json and safetensors")
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(
            snapshot_download(
                str(name_or_folder),
                allow_patterns=["*.json", "*.safetensors", "*.txt"],
                local_files_only=constants.HF_HUB_OFFLINE,
            )
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name_or_folder}: not in the cache and not fetched from huggingface.co "
            f"({one_line(error)[:120]}); go online, or give the path of a downloaded folder"
        ) from None


def model_type(folder: Path) -> str:
    """``model_type`` of ``config.json``.

    Raises:
        InputError: There is no readable ``config.json``.
    """
    return str(read_json(folder / "config.json").get("model_type", ""))


def model_hashes(folder: Path) -> Mapping[str, str]:
    """SHA-256 of the weights and of every file that settings or words come from.

    Raises:
        InputError: The folder has no safetensors.
    """
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if not weights:
        raise InputError(
            f"{folder}: has no .safetensors; save the model again with save_pretrained (pickles are not read)"
        )
    settings = [name for name in _HASHED if (folder / name).is_file()]
    return file_hashes(folder, [*weights, *settings])


def load_pretrained(factory: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Calls a ``from_pretrained`` on a local folder, offline and without code of the folder.

    Raises:
        InputError: The folder does not hold what the factory needs.
    """
    from transformers.utils import logging

    loud = logging.get_verbosity()
    # What it would report of a folder that does not fit is said in one line by the caller.
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        return factory(str(folder), local_files_only=True, trust_remote_code=False, **options)
    # transformers raises its own and other libraries' errors here, which share no base class.
    except Exception as error:
        raise InputError(f"{folder}: transformers cannot load it ({one_line(error)[:200]})") from None
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(loud)


def load_processor(factory: Callable[..., Any], folder: Path) -> Any:
    """Loads an image processor or a processor with a tokenizer; its sizes must be sensible.

    Raises:
        InputError: The folder does not hold what the factory needs, or images would be made enormous.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            _check_image_sizes(folder / name, read_json(folder / name), 0)
    return load_pretrained(factory, folder)


def _check_image_sizes(path: Path, value: Any, depth: int) -> None:
    if depth > _MAX_NESTING:
        raise InputError(f"{path}: nested deeper than {_MAX_NESTING} objects; copy the model again")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        if type(one) in (int, float) and not abs(one) <= MAX_SIDE and str(name) in _SIZES:
            raise InputError(
                f"{path}: field {name} is {one}; images larger than {MAX_SIDE} pixels are not made"
            )
        _check_image_sizes(path, one, depth + 1)


def _check_config(path: Path) -> None:
    """Refuses what makes transformers fetch or build more than the files of the folder.

    Raises:
        InputError: A field asks for it.
    """
    config = read_json(path)
    inner = config.get("backbone_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for name in _ELSEWHERE:
            if part.get(name):
                raise InputError(
                    f"{path}: field {name} asks for a part that is not in the folder, or for quantised weights; "
                    "save the whole model in float32 or float16"
                )


def load_network(kind: Any, folder: Path) -> Any:
    """Loads a model from safetensors in float32; its tensors must be exactly those of the files.

    Headers and ``config.json`` are compared before memory is taken for either.

    Args:
        kind: The class of the model, of transformers.
        folder: Folder with ``config.json`` and safetensors.

    Raises:
        InputError: The files and the configuration do not belong together, a tensor is missing, superfluous or of
            another shape or kind, or weights are NaN or infinite; the first of them are named.
    """
    import torch

    from reference_model.checkpoints.inspection import inspect_component, read_facts
    from reference_model.checkpoints.tensors import CheckpointError, check_finite, listing

    _check_config(folder / "config.json")
    try:
        inspect_component(folder, kind)
        # Tables of whole numbers that older versions saved and that a model computes itself.
        tables = {name for name, fact in read_facts(folder).items() if not fact.dtype.is_floating_point}
    except CheckpointError as error:
        raise InputError(str(error)) from None
    model, report = load_pretrained(
        kind.from_pretrained,
        folder,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    odd = {str(one) for key in ("missing_keys", "mismatched_keys") for one in report[key]}
    if odd:
        raise InputError(
            f"{folder}: weights are missing or do not fit: {listing(odd)}; give the complete model"
        )
    spare = set(map(str, report["unexpected_keys"])) - tables
    if spare:
        raise InputError(
            f"{folder}: holds weights that {kind.__name__} does not have: {listing(spare)}; "
            "config.json and the safetensors do not belong together"
        )
    try:
        check_finite(model.state_dict(), str(folder))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    return model.eval().requires_grad_(False)
