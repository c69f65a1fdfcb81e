"""Mask2Former from transformers: an instance segmenter for COCO and other fixed lists of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torchvision.ops import masks_to_boxes

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.base import Detections
from instbench.evaluators.hub import load_network, load_processor, model_hashes, model_type
from instbench.layouts import rle

__all__ = ["Mask2FormerDetector"]

MODEL_TYPE = "mask2former"


class Mask2FormerDetector:
    """A Mask2Former with the instance inference of its paper.

    Every pair of query and category is a candidate; the best `max_detections` are kept. A score is the category's
    probability times the mean probability of the pixels inside the mask (Cheng et al. 2022, ``instance_inference``
    of the published code). Masks may overlap. Images go through one at a time, since the network sees the padding
    of a batch.

    Args:
        model: A ``Mask2FormerForUniversalSegmentation`` with weights.
        processor: Its image processor.
        hashes: SHA-256 of the files that both were made from.
        device: Where to run.
        max_detections: Detections per image.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        hashes: Mapping[str, str] | None = None,
        *,
        device: str | torch.device = "auto",
        max_detections: int = 100,
    ) -> None:
        self._device = resolve_device(device)
        self._model = model.eval().to(self._device)
        self._processor = processor
        self._hashes = dict(hashes or {})
        self.max_detections = max_detections
        labels = model.config.id2label
        self.categories: tuple[str, ...] = tuple(labels[index] for index in range(len(labels)))

    @classmethod
    def from_folder(cls, folder: Path, *, device: str | torch.device = "auto") -> Mask2FormerDetector:
        """Loads a folder that ``save_pretrained`` wrote: ``config.json``, safetensors, ``preprocessor_config.json``.

        Raises:
            InputError: Something is missing or does not fit.
        """
        from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

        if model_type(folder) != MODEL_TYPE:
            raise InputError(f"{folder}: holds a {model_type(folder)!r}, expected {MODEL_TYPE!r}")
        processor = load_processor(AutoImageProcessor.from_pretrained, folder)
        model = load_network(Mask2FormerForUniversalSegmentation, folder)
        labels = model.config.id2label
        if set(labels) != set(range(len(labels))) or not all(isinstance(one, str) for one in labels.values()):
            raise InputError(f"{folder / 'config.json'}: field id2label must name the categories 0, 1, 2, …")
        return cls(model, processor, model_hashes(folder), device=device)

    def identity(self) -> Mapping[str, Any]:
        """Kind, SHA-256 of the files, categories and settings."""
        return {
            "kind": MODEL_TYPE,
            "categories": list(self.categories),
            "max_detections": self.max_detections,
            "sha256": dict(self._hashes),
        }

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """Finds objects.

        Args:
            images: Images of any size; converted to RGB.

        Returns:
            One `Detections` per image, in order, with masks at image size; boxes are those of the masks.
        """
        return [self._detect_one(image.convert("RGB")) for image in images]

    @torch.inference_mode()
    def _detect_one(self, image: Image.Image) -> Detections:
        inputs = self._processor(images=[image], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device)
        output = self._model(pixel_values=pixels, pixel_mask=inputs["pixel_mask"].to(self._device))
        probabilities = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]
        kept = min(self.max_detections, probabilities.numel())
        scores, flat = probabilities.flatten().topk(kept)
        queries, labels = flat // probabilities.shape[1], flat % probabilities.shape[1]
        logits = self._at_image_size(
            output.masks_queries_logits[0][queries], pixels, inputs["pixel_mask"][0], image
        )
        masks = logits > 0
        inside = masks.flatten(1)
        sure = (logits.sigmoid().flatten(1) * inside).sum(1) / inside.sum(1).clamp(min=1)
        scores = scores * sure
        order = scores.argsort(descending=True, stable=True)
        order = order[inside.any(1)[order]]
        seen = masks[order]
        # Pixels are squares of side 1: the box of one pixel has an extent of 1, not 0.
        boxes = masks_to_boxes(seen).reshape(-1, 4) + torch.tensor([0, 0, 1, 1], device=seen.device)
        return Detections(
            boxes_xyxy=boxes.cpu().numpy().astype(np.float32),
            scores=scores[order].float().cpu().numpy(),
            categories=tuple(self.categories[int(label)] for label in labels[order]),
            masks=tuple(rle.encode(mask) for mask in seen.cpu().numpy()),
        )

    @staticmethod
    def _at_image_size(
        logits: torch.Tensor, pixels: torch.Tensor, pixel_mask: torch.Tensor, image: Image.Image
    ) -> torch.Tensor:
        """Mask logits [N, h, w] of the padded input, resized to [N, H, W] of the image without the padding."""
        full = functional.interpolate(
            logits[None].float(), size=tuple(pixels.shape[-2:]), mode="bilinear", align_corners=False
        )
        height, width = int(pixel_mask[:, 0].sum()), int(pixel_mask[0].sum())
        shown = full[..., :height, :width]
        size = (image.height, image.width)
        return functional.interpolate(shown, size=size, mode="bilinear", align_corners=False)[0]
