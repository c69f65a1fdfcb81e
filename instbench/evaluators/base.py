"""The contracts of evaluators: networks that look at images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instbench.layouts.types import MaskRLE

__all__ = ["Detections", "Detector", "FeatureExtractor", "ImageTextModel"]


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector sees in one image, best score first.

    Attributes:
        boxes_xyxy: float32 [N, 4], pixels of the image as given.
        scores: float32 [N], in [0, 1].
        categories: N category names.
        masks: N masks at image size, or None where the detector makes none.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    categories: tuple[str, ...]
    masks: tuple[MaskRLE, ...] | None = None

    def __len__(self) -> int:
        return len(self.categories)


@runtime_checkable
class Detector(Protocol):
    """Finds objects of named categories."""

    categories: tuple[str, ...]

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """One `Detections` per image, in order."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Kind, weights' SHA-256, thresholds."""
        ...


@runtime_checkable
class ImageTextModel(Protocol):
    """Scores images against texts."""

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine similarities, float32 [len(images), len(texts)]."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Kind, weights' SHA-256."""
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """Makes image features for FID."""

    num_features: int

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 [len(images), num_features]."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Kind, weights' SHA-256, resize rule."""
        ...
