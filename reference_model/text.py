"""Text embeddings, each distinct string once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["TextEmbedder"]

logger = logging.getLogger(__name__)

_BATCH = 64


class TextEmbedder:
    """Embeds prompts (token states) and phrases (pooled state) with a CLIP text encoder.

    Phrases use the pooled state before CLIP's projection, prompts the last hidden states of all tokens, both
    as published. Texts beyond the tokenizer's limit are cut, with a warning that shows the cut.

    Args:
        tokenizer: A `CLIPTokenizer`.
        text_encoder: A `CLIPTextModel`.
        capacity: Most embeddings kept; the least recently used go first.

    Attributes:
        cuts: Texts that were cut so far, and what was left out of each.
    """

    def __init__(self, tokenizer: Any, text_encoder: Any, capacity: int = 512) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.capacity = capacity
        self.cuts: dict[str, str] = {}
        self._cache: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._signature: tuple[torch.dtype, str] | None = None

    @property
    def max_length(self) -> int:
        """Tokens per text, start and end tokens included."""
        positions = int(self.text_encoder.config.max_position_embeddings)
        return min(int(self.tokenizer.model_max_length), positions)

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Embeds texts.

        Args:
            texts: Any strings, repeats allowed.
            device: Where to compute and where the results go.

        Returns:
            Token states [n, L, D] and pooled states [n, D].
        """
        signature = (self.text_encoder.dtype, str(device))
        if signature != self._signature:
            self._cache.clear()
            self._signature = signature
        wanted: dict[str, tuple[Tensor, Tensor]] = {}
        missing = []
        for text in dict.fromkeys(texts):
            if text in self._cache:
                self._cache.move_to_end(text)
                wanted[text] = self._cache[text]
            else:
                missing.append(text)
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            states, pooled = self._encode(part, device)
            wanted.update((text, (states[row].clone(), pooled[row].clone())) for row, text in enumerate(part))
        self._cache.update((text, wanted[text]) for text in missing)
        while len(self._cache) > self.capacity:
            self._cache.popitem(last=False)
        rows = [wanted[text] for text in texts]
        return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])

    @torch.no_grad()
    def _encode(self, texts: list[str], device: torch.device | str) -> tuple[Tensor, Tensor]:
        ids = self.tokenizer(
            texts, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        ).input_ids
        for text in texts:
            self._note_cut(text)
        # No attention mask, as published: padding tokens are part of the prompt's states.
        output = self.text_encoder(ids.to(device))
        return output.last_hidden_state, output.pooler_output

    def _note_cut(self, text: str) -> None:
        """Warns, once per text, if the tokenizer's limit cuts it."""
        if text in self.cuts:
            return
        ids = self.tokenizer(text, truncation=False, verbose=False).input_ids
        if len(ids) <= self.max_length:
            return
        cut = self.tokenizer.decode(ids[self.max_length - 1 : -1]).strip()
        self.cuts[text] = cut  # never dropped: a later image may have the text again
        logger.warning(
            "text of %d tokens cut to %d: %r; left out: %r", len(ids), self.max_length, text[:60], cut
        )
