"""OWLv2 and OWL-ViT from transformers: detectors for any category that has a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.evaluators.hub import load_network, load_processor, model_hashes, model_type

__all__ = ["MODEL_TYPES", "OwlDetector", "query_text"]

MODEL_TYPES = ("owlv2", "owlvit")
PROMPT = "a photo of a {}"
_TEXTS_PER_CALL = 32


def query_text(category: str) -> str:
    """The text that stands for a category: lower case, no underscores or punctuation, in a fixed prompt."""
    words = re.sub(r"[^\w\s]", " ", category.lower()).replace("_", " ").split()
    return PROMPT.format(" ".join(words))


class OwlDetector:
    """An open-vocabulary detector; the categories are given, not learnt.

    The image is encoded once, whatever the number of categories. A category is scored on its own, so a score does
    not depend on which other categories are asked for, nor on the other images. Every pair of box and category is a
    candidate, as in the evaluation of the paper on LVIS; nothing is suppressed.

    Args:
        model: An ``Owlv2ForObjectDetection`` or ``OwlViTForObjectDetection`` with weights.
        processor: Its processor (images and texts).
        categories: What to look for; see `with_categories`.
        hashes: SHA-256 of the files that both were made from.
        device: Where to run.
        confidence: Smallest score of a detection.
        max_detections: Detections per image (300 as LVIS evaluates).
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        categories: Sequence[str] = (),
        hashes: Mapping[str, str] | None = None,
        *,
        device: str | torch.device = "auto",
        confidence: float = 0.001,
        max_detections: int = 300,
    ) -> None:
        self._device = resolve_device(device)
        self._model = model.eval().to(self._device)
        self._processor = processor
        self._hashes = dict(hashes or {})
        self._queries: torch.Tensor | None = None
        self.confidence = confidence
        self.max_detections = max_detections
        self.categories = tuple(categories)

    @classmethod
    def from_folder(cls, folder: Path, *, device: str | torch.device = "auto") -> OwlDetector:
        """Loads a folder that ``save_pretrained`` of model and processor wrote.

        Raises:
            InputError: Something is missing or does not fit.
        """
        from transformers import AutoProcessor, Owlv2ForObjectDetection, OwlViTForObjectDetection

        if model_type(folder) not in MODEL_TYPES:
            raise InputError(f"{folder}: holds a {model_type(folder)!r}, expected {' or '.join(MODEL_TYPES)}")
        processor = load_processor(AutoProcessor.from_pretrained, folder)
        kind = Owlv2ForObjectDetection if model_type(folder) == "owlv2" else OwlViTForObjectDetection
        return cls(load_network(kind, folder), processor, hashes=model_hashes(folder), device=device)

    def with_categories(self, categories: Sequence[str]) -> OwlDetector:
        """The same network, looking for other categories.

        Args:
            categories: Names; a benchmark gives those of its layouts.

        Raises:
            InputError: There is none, one is empty, or one is there twice.
        """
        if not categories or len(set(categories)) != len(categories):
            raise InputError("the open-vocabulary detector needs categories, each of them once")
        empty = [name for name in categories if query_text(name) == query_text("")]
        if empty:
            raise InputError(f"category {empty[0]!r} has no word to look for; give it a name")
        return OwlDetector(
            self._model,
            self._processor,
            categories,
            self._hashes,
            device=self._device,
            confidence=self.confidence,
            max_detections=self.max_detections,
        )

    def identity(self) -> Mapping[str, Any]:
        """Kind, SHA-256 of the files, categories, prompt and thresholds."""
        return {
            "kind": str(self._model.config.model_type),
            "categories": list(self.categories),
            "prompt": PROMPT,
            "confidence": self.confidence,
            "max_detections": self.max_detections,
            "sha256": dict(self._hashes),
        }

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """Finds objects of the categories.

        Args:
            images: Images of any size; converted to RGB.

        Returns:
            One `Detections` per image, in order, without masks; boxes in pixels, clipped to the image.

        Raises:
            InputError: No categories were given.
        """
        if not self.categories:
            raise InputError("the open-vocabulary detector was given no categories; see with_categories")
        return [self._detect_one(image.convert("RGB")) for image in images]

    @torch.inference_mode()
    def _embeddings(self) -> torch.Tensor:
        """Text embeddings, [len(categories), dim]; made once."""
        if self._queries is None:
            base = getattr(self._model, str(self._model.config.model_type))
            length = self._model.config.text_config.max_position_embeddings
            rows = []
            for start in range(0, len(self.categories), _TEXTS_PER_CALL):
                texts = [query_text(name) for name in self.categories[start : start + _TEXTS_PER_CALL]]
                tokens = self._processor.tokenizer(
                    texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
                ).to(self._device)
                outputs = base.text_model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                )
                rows.append(base.text_projection(outputs.pooler_output))
            embedded = torch.cat(rows)
            self._queries = embedded / torch.linalg.norm(embedded, dim=-1, keepdim=True)
        return self._queries

    @torch.inference_mode()
    def _detect_one(self, image: Image.Image) -> Detections:
        pixels = self._processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        feature_map = self._model.image_embedder(pixel_values=pixels.to(self._device))[0]
        patches = feature_map.flatten(1, 2)
        logits = self._model.class_predictor(patches, self._embeddings()[None])[0][0]
        boxes = self._model.box_predictor(patches, feature_map)[0]
        scores, flat = logits.float().sigmoid().flatten().topk(min(self.max_detections, logits.numel()))
        kept = scores > self.confidence
        scores, flat = scores[kept], flat[kept]
        chosen, labels = boxes[flat // logits.shape[1]].float(), flat % logits.shape[1]
        corners = torch.cat([chosen[:, :2] - chosen[:, 2:] / 2, chosen[:, :2] + chosen[:, 2:] / 2], dim=1)
        # OWLv2 pads images to squares at the right and bottom; OWL-ViT squeezes them.
        longest = max(image.size)
        size = image.size if self._model.config.model_type == "owlvit" else (longest, longest)
        pixels_xyxy = corners.cpu().numpy() * np.array([*size, *size], dtype=np.float32)
        limits = np.array([*image.size, *image.size], dtype=np.float32)
        return Detections(
            boxes_xyxy=np.clip(pixels_xyxy, 0, limits).astype(np.float32),
            scores=scores.cpu().numpy(),
            categories=tuple(self.categories[int(label)] for label in labels),
        )
