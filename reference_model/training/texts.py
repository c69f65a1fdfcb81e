"""Text states for training: pooled states of phrases, token states of captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPTextModel, CLIPTokenizer

from reference_model.text import TextEmbedder
from reference_model.training.locations import Locations

__all__ = ["LiveStates", "embed_texts"]

_ROWS = 256  # texts per call of the encoder


def _embedder(text_encoder: Path, tokenizer: Path, device: torch.device | str = "cpu") -> TextEmbedder:
    """The frozen text encoder with its tokenizer; it warns of texts that it cuts."""
    try:
        model = CLIPTextModel.from_pretrained(text_encoder, local_files_only=True).eval().to(device)
        words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{text_encoder}, {tokenizer}: no CLIP text encoder and tokenizer ({reason})"
        ) from None
    return TextEmbedder(words, model, capacity=_ROWS)


def embed_texts(
    locations: Locations, text_encoder: Path, tokenizer: Path, output: Path, *, captions: bool = True
) -> None:
    """Embeds all distinct phrases, and captions if asked, into files, once.

    Args:
        locations: Their texts.
        text_encoder: Folder of the frozen CLIPTextModel.
        tokenizer: Folder of the CLIPTokenizer.
        output: Folder that receives ``phrases.npy`` (pooled states, float16 [P, D]) and ``captions.npy``
            (token states, float16 [C, 77, D]); existing files are kept.
        captions: Whether captions are embedded.
    """
    wanted = {"phrases": locations.phrases}
    if captions:
        wanted["captions"] = locations.captions
    wanted = {name: rows for name, rows in wanted.items() if not (output / f"{name}.npy").exists()}
    if not wanted:
        return
    embedder = _embedder(text_encoder, tokenizer)
    length, width = embedder.max_length, int(embedder.text_encoder.config.hidden_size)
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in wanted.items():
        shape = (len(rows), length, width) if name == "captions" else (len(rows), width)
        partial = output / f"{name}.part.npy"
        states = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, len(rows), _ROWS):
            tokens, pooled = embedder(rows[start : start + _ROWS])
            chosen = tokens if name == "captions" else pooled
            states[start : start + _ROWS] = chosen.half().numpy()
        states.flush()
        partial.replace(output / f"{name}.npy")


class LiveStates:
    """Token states of captions, encoded when they are asked for: no file of 118 kB per caption.

    Args:
        captions: The captions by row.
        text_encoder: Folder of the frozen CLIPTextModel.
        tokenizer: Folder of the CLIPTokenizer.
        device: Where the encoder runs.
    """

    def __init__(
        self,
        captions: Sequence[str],
        text_encoder: Path,
        tokenizer: Path,
        device: torch.device | str = "cpu",
    ) -> None:
        self._captions = captions
        self._embedder = _embedder(text_encoder, tokenizer, device)
        self._device = device

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Token states, float32 [len(rows), 77, D]."""
        tokens, _ = self._embedder([self._captions[row] for row in rows], self._device)
        states: NDArray[Any] = tokens.float().cpu().numpy()
        return states
