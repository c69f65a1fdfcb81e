"""Folders of transformers models: on disk, or fetched from the Hugging Face hub where a network is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.evaluators.folders import file_hashes, one_line, read_json

__all__ = ["is_hub_name", "load_network", "load_pretrained", "model_folder", "model_hashes", "model_type"]

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

    logging.disable_progress_bar()
    try:
        return factory(str(folder), local_files_only=True, trust_remote_code=False, **options)
    # transformers raises its own and other libraries' errors here, which share no base class.
    except Exception as error:
        raise InputError(f"{folder}: transformers cannot load it ({one_line(error)[:200]})") from None
    finally:
        logging.enable_progress_bar()


def load_network(auto_class: Any, folder: Path) -> Any:
    """Loads a model from safetensors in float32; every tensor of the model must be there.

    Raises:
        InputError: Weights are missing, do not fit, or are NaN or infinite.
    """
    import torch

    from reference_model.checkpoints.tensors import CheckpointError, check_finite

    model, report = load_pretrained(
        auto_class.from_pretrained,
        folder,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise InputError(
            f"{folder}: weights are missing or do not fit, first {missing[0]!r} ({len(missing)} in all); "
            "give the complete model"
        )
    try:
        check_finite(model.state_dict(), str(folder))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    return model.eval().requires_grad_(False)
