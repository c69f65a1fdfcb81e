"""open_clip models by name (``ViT-L-14/laion2b_s32b_b82k``), with weights from a file or from the hub."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from instbench.errors import InputError
from instbench.evaluators.folders import fit_weights, one_line
from instbench.evaluators.image_text import OpenClipImageText, build_clip
from instbench.evaluators.known_weights import weights_home
from instbench.registry import did_you_mean
from instbench.runs.atomic import sha256_file
from reference_model.checkpoints import CheckpointError, open_checkpoint
from reference_model.checkpoints.tensors import LazyTensor

__all__ = ["is_open_clip_name", "load_open_clip"]

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_NAME = r"[A-Za-z0-9][\w.-]*"


def is_open_clip_name(name: str) -> bool:
    """Whether a text has the form ``MODEL/TAG``, ``MODEL=FILE`` or ``MODEL/TAG=FILE``."""
    return re.fullmatch(rf"{_NAME}/{_NAME}|{_NAME}(/{_NAME})?=.+", name) is not None


def load_open_clip(name: str, *, device: str | torch.device = "auto") -> OpenClipImageText:
    """Loads a model of open_clip's own list.

    Args:
        name: ``MODEL/TAG`` as in ``open_clip.list_pretrained()``: the file ``MODEL/TAG`` with a suffix in the
            folder of weights, else from the hub's cache or the network. ``MODEL/TAG=FILE`` takes the weights from
            a file and the preprocessing of the tag; ``MODEL=FILE`` the model's default preprocessing.
        device: Where to run.

    Raises:
        InputError: Unknown model or tag, no weights, or weights that do not fit or ask for code to be run.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform

    model_and_tag, _, given = name.partition("=")
    model_name, _, tag = model_and_tag.partition("/")
    config = open_clip.get_model_config(model_name)
    if config is None:
        raise InputError(
            f"unknown open_clip model {model_name!r}; {_hint(model_name, open_clip.list_models())}"
        )
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if tag and tag not in tags:
        raise InputError(f"open_clip model {model_name} has no weights {tag!r}; {_hint(tag, tags)}")
    published = dict(open_clip.get_pretrained_cfg(model_name, tag)) if tag else {}
    source = f"open_clip model {model_name}"
    model = build_clip(_native(config, published, source), source)
    path = Path(given).expanduser() if given else _find(model_name, tag, published)
    _load(model, path)
    preprocess = {
        field: published.get(field) or getattr(PreprocessCfg(), field)
        for field in ("mean", "std", "interpolation", "resize_mode")
    }
    size = cast(Any, model).visual.image_size
    transform = image_transform(size, is_train=False, **preprocess)
    tokenizer = open_clip.SimpleTokenizer(context_length=int(cast(int, model.context_length)))
    facts = {
        "model": model_and_tag,
        "preprocess": {
            "size": size,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.items()},
        },
    }
    return OpenClipImageText(
        model.float(),
        transform,
        lambda texts: cast(torch.Tensor, tokenizer(list(texts))),
        {path.name: sha256_file(path)},
        device=device,
        facts=facts,
    )


def _hint(name: str, known: list[str]) -> str:
    return (
        did_you_mean(name, known)
        if len(known) < 40
        else did_you_mean(name, known).partition("known:")[0] or ("see open_clip.list_pretrained()")
    )


def _native(config: Mapping[str, Any], published: Mapping[str, Any], source: str) -> dict[str, Any]:
    if config.get("custom_text") or "multimodal_cfg" in config or "hf_tokenizer_name" in config["text_cfg"]:
        raise InputError(
            f"{source}: needs towers or tokenizers of other libraries; use a plain CLIP such as ViT-L-14"
        )
    native = deepcopy(dict(config))
    if published.get("quick_gelu"):
        native["quick_gelu"] = True
    return native


def _find(model_name: str, tag: str, published: Mapping[str, Any]) -> Path:
    home = weights_home() / model_name
    for suffix in _SUFFIXES:
        if (home / f"{tag}{suffix}").is_file():
            return home / f"{tag}{suffix}"
    from open_clip.pretrained import download_pretrained

    try:
        return Path(download_pretrained(published))
    # Whatever stands in the way (no network, no space, a proxy), the remedy is the same.
    except Exception as error:
        where = published.get("hf_hub", "").strip("/")
        address = f"https://huggingface.co/{where}" if where else published.get("url", "its makers")
        raise InputError(
            f"{model_name}/{tag}: weights are not here and could not be fetched ({one_line(error)[:80]}); put "
            f"open_clip_model.safetensors of {address} at {home / tag}.safetensors, or give {model_name}/{tag}=FILE"
        ) from None


def _load(model: torch.nn.Module, path: Path) -> None:
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: give a file that ends in {', '.join(_SUFFIXES)}")
    try:
        with open_checkpoint(path) as content:
            entries: Any = content.get("state_dict", content)
            state = _state(entries, path)
            scale = cast(torch.Tensor, model.logit_scale)
            held = state.get("logit_scale")
            # Some files have the one number of this tensor in a list.
            if held is not None and math.prod(held.shape) == 1:
                state["logit_scale"] = replace(
                    held, shape=tuple(scale.shape), read=lambda: held.read().reshape(scale.shape)
                )
            fit_weights(model, state, path)
    except CheckpointError as error:
        raise InputError(str(error)) from None


def _state(entries: Any, path: Path) -> dict[str, LazyTensor]:
    if not isinstance(entries, dict) or not all(isinstance(one, LazyTensor) for one in entries.values()):
        raise InputError(f"{path}: holds no dict of tensors; give the weights of an open_clip model")
    names = [str(name) for name in entries]
    # Weights of distributed training carry the wrapper's name.
    cut = len("module.") if names and all(name.startswith("module.") for name in names) else 0
    return {str(name)[cut:]: tensor for name, tensor in entries.items()}
