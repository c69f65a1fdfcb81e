"""The text encoder of published checkpoints (`FrozenCLIPEmbedder`), and the tokenizer that belongs to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from reference_model.checkpoints.tensors import CheckpointError, LazyTensor, listing

__all__ = ["load_tokenizer", "text_encoder_from_published", "text_encoder_to_published", "text_weights"]

_PREFIX: Final = "transformer."
_INNER: Final = "text_model."
_BUFFER: Final = "embeddings.position_ids"  # 0, 1, 2, …: some versions of transformers stored it
_HEAD_SIZE: Final = 64  # of every CLIP text tower
_MAX_LAYERS = 128


def text_weights(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The weights among `checkpoint["text_encoder"]`: without the positions that some versions stored."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_BUFFER)}


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Loads the tokenizer of Stable Diffusion (CLIP ViT-L/14) from a folder.

    Args:
        folder: A folder that a tokenizer was saved to, or a pipeline folder with a `tokenizer` folder in it.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: If there is none.
    """
    inner = folder / "tokenizer"
    path = inner if inner.is_dir() else folder
    if not any((path / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise CheckpointError(
            f"--tokenizer {folder}: no tokenizer here (vocab.json and merges.txt, or tokenizer.json); give the folder "
            "of CLIP ViT-L/14's tokenizer, or of a Stable Diffusion 1.x pipeline"
        )
    try:
        return CLIPTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # whatever a damaged folder makes the loader raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"--tokenizer {folder}: cannot be loaded ({reason})") from None


def _layers(names: Mapping[str, Tensor]) -> int:
    found = {int(match[1]) for name in names if (match := re.search(r"encoder\.layers\.(\d{1,6})\.", name))}
    if not found or max(found) >= _MAX_LAYERS:
        raise CheckpointError("text_encoder: has no layers; this is not CLIP's text encoder")
    return max(found) + 1


def text_encoder_from_published(
    state_dict: Mapping[str, Tensor], tokenizer: CLIPTokenizer, *, heads: int | None = None
) -> CLIPTextModel:
    """Builds the text encoder of a published checkpoint; its sizes are read from the tensors.

    Args:
        state_dict: `checkpoint["text_encoder"]`, float; tensors may be shared with the result.
        tokenizer: The tokenizer that belongs to it.
        heads: Attention heads; None takes one per 64 channels, as in every CLIP.

    Returns:
        The text encoder, in eval mode.

    Raises:
        CheckpointError: If tensors are missing, unexpected or of the wrong shape, or the tokenizer has more entries
            than the encoder has embeddings.
    """
    inner = {name.removeprefix(_PREFIX).removeprefix(_INNER): tensor for name, tensor in state_dict.items()}
    depth = _layers(inner)
    try:
        vocabulary, width = inner["embeddings.token_embedding.weight"].shape
        positions = inner["embeddings.position_embedding.weight"].shape[0]
        hidden = inner["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"text_encoder: {error} is missing; this is not CLIP's text encoder") from None
    if len(tokenizer) > vocabulary:
        raise CheckpointError(
            f"--tokenizer: has {len(tokenizer)} entries, but the text encoder {vocabulary} embeddings; give its own"
        )
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=depth,
        num_attention_heads=heads or max(1, width // _HEAD_SIZE),
        max_position_embeddings=positions,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config)
    own = model.state_dict()
    tensors = {_own_name(name, own): tensor for name, tensor in inner.items()}
    expected = {name for name in own if not name.endswith(_BUFFER)}
    missing, unexpected = expected - set(tensors), set(tensors) - expected
    if missing or unexpected:
        parts = [
            f"{what}: {listing(keys)}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise CheckpointError(f"text_encoder: not CLIP's text encoder; {'; '.join(parts)}")
    wrong = {
        f"{name} {tuple(tensors[name].shape)}" for name in expected if tensors[name].shape != own[name].shape
    }
    if wrong:
        raise CheckpointError(f"text_encoder: wrong shape: {listing(wrong)}")
    model.load_state_dict(tensors, strict=False)
    return model.to(next(iter(tensors.values())).dtype).eval()


def _own_name(name: str, own: Mapping[str, Any]) -> str:
    """Some versions of transformers keep an inner `text_model`, others do not."""
    return f"{_INNER}{name}" if f"{_INNER}embeddings.token_embedding.weight" in own else name


def text_encoder_to_published(model: CLIPTextModel) -> dict[str, Tensor]:
    """The tensors of a text encoder under their published names."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith(_BUFFER) and isinstance(tensor, torch.Tensor):
            tensors[f"{_PREFIX}{_INNER}{name.removeprefix(_INNER)}"] = tensor.detach()
    return tensors
