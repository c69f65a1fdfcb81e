"""Evaluators by name or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from instbench.errors import InputError
from instbench.evaluators.base import Detector, FeatureExtractor, ImageTextModel
from instbench.registry import did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = ["SHIPPED", "load_detector", "load_features", "load_image_text", "shipped_folder"]

SHIPPED = {
    "shapes-yolo": "detector",
    "shapes-clip": "image-text model",
    "shapes-features": "feature extractor",
}
"""Names of the evaluators that come with the package, with their roles."""


def shipped_folder(name: str) -> Path:
    """Folder of an evaluator that comes with the package.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SHIPPED:
        raise InputError(f"unknown evaluator {name!r}; known: {', '.join(SHIPPED)}")
    return Path(__file__).parent / "weights" / name


def load_detector(name_or_folder: str | Path, device: str | torch.device = "auto") -> Detector:
    """Loads a detector.

    Args:
        name_or_folder: ``"shapes-yolo"`` or a folder with ``evaluator.json``.
        device: Torch device, or ``"auto"``.

    Returns:
        The detector, ready for use.

    Raises:
        InputError: Unknown name, missing or broken folder, or a pickle.
    """
    folder = _folder(name_or_folder, "detector")
    from instbench.evaluators.yolo import UltralyticsDetector

    return UltralyticsDetector.from_folder(folder, device=device)


def load_image_text(name_or_folder: str | Path, device: str | torch.device = "auto") -> ImageTextModel:
    """Loads an image-text model; arguments and errors as for `load_detector` (``"shapes-clip"``)."""
    folder = _folder(name_or_folder, "image-text model")
    from instbench.evaluators.image_text import OpenClipImageText

    return OpenClipImageText.from_folder(folder, device=device)


def load_features(name_or_folder: str | Path, device: str | torch.device = "auto") -> FeatureExtractor:
    """Loads a feature extractor; arguments and errors as for `load_detector` (``"shapes-features"``)."""
    folder = _folder(name_or_folder, "feature extractor")
    from instbench.evaluators.features import ResNetFeatures

    return ResNetFeatures.from_folder(folder, device=device)


def _folder(name_or_folder: str | Path, role: str) -> Path:
    names = [name for name, its_role in SHIPPED.items() if its_role == role]
    if isinstance(name_or_folder, str) and name_or_folder in SHIPPED:
        if name_or_folder not in names:
            raise InputError(
                f"{name_or_folder!r} is the role '{SHIPPED[name_or_folder]}', not '{role}'; use {' or '.join(names)}"
            )
        return shipped_folder(name_or_folder)
    path = Path(name_or_folder)
    if path.exists():
        return path
    hint = did_you_mean(str(name_or_folder), names)
    raise InputError(
        f"unknown {role} {str(name_or_folder)!r}; {hint} (a folder with evaluator.json does too)"
    )
