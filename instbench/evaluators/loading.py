"""Evaluators by name, file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from instbench.errors import InputError
from instbench.evaluators.base import Detector, FeatureExtractor, ImageTextModel
from instbench.evaluators.folders import CARD_NAME
from instbench.evaluators.hub import is_hub_name, model_folder, model_type
from instbench.evaluators.known_weights import INCEPTION, YOLO, KnownWeights, find_weights
from instbench.registry import did_you_mean

if TYPE_CHECKING:
    import torch

    from instbench.evaluators.inception import ResizeRule

__all__ = ["SHIPPED", "load_detector", "load_features", "load_image_text", "shipped_folder"]

SHIPPED = {
    "shapes-yolo": "detector",
    "shapes-clip": "image-text model",
    "shapes-features": "feature extractor",
}
"""Names of the evaluators that come with the package, with their roles."""

_INCEPTION: dict[str, ResizeRule] = {"inception": "antialias", "inception-tf1": "tensorflow1"}
_OTHERS = {"detector": tuple(YOLO), "feature extractor": tuple(_INCEPTION), "image-text model": ()}


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
        name_or_folder: ``"shapes-yolo"``; ``"yolov8m-seg"`` or ``"yolov8m"`` (files in the folder of weights); a
            ``.pt`` file of ultralytics, which is read without running anything in it; a folder with
            ``evaluator.json``; a folder of transformers (Mask2Former, OWLv2, OWL-ViT), or its name on the hub.
        device: Torch device, or ``"auto"``.

    Returns:
        The detector, ready for use.

    Raises:
        InputError: Unknown name, missing or broken file or folder, or a pickle that asks for code to be run.
    """
    name = str(name_or_folder)
    if name in YOLO or (name.endswith(".pt") and not Path(name).is_dir()):
        from instbench.evaluators.yolo import UltralyticsDetector

        return UltralyticsDetector.from_checkpoint(_yolo_file(name), device=device)
    if name not in SHIPPED and (
        _is_transformers(Path(name)) or (not Path(name).exists() and is_hub_name(name))
    ):
        return _load_transformers(name, device)
    folder = _folder(name_or_folder, "detector")
    from instbench.evaluators.yolo import UltralyticsDetector

    return UltralyticsDetector.from_folder(folder, device=device)


def _yolo_file(name: str) -> Path:
    if name in YOLO:
        return find_weights(YOLO[name])
    path = Path(name)
    if path.exists() or len(path.parts) > 1:
        return path
    stem = name.removesuffix(".pt")
    # Any official file name; only two of them are registered.
    return find_weights(YOLO.get(stem) or KnownWeights(name, YOLO["yolov8m"].url.replace("yolov8m.pt", name)))


def _is_transformers(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / CARD_NAME).exists()


def _load_transformers(name: str, device: str | torch.device) -> Detector:
    folder = model_folder(name)
    kind = model_type(folder)
    if kind == "mask2former":
        from instbench.evaluators.mask2former import Mask2FormerDetector

        return Mask2FormerDetector.from_folder(folder, device=device)
    if kind in ("owlv2", "owlvit"):
        from instbench.evaluators.owl import OwlDetector

        return OwlDetector.from_folder(folder, device=device)
    raise InputError(f"{name}: a model of type {kind!r}; detectors are mask2former, owlv2 and owlvit")


def load_image_text(name_or_folder: str | Path, device: str | torch.device = "auto") -> ImageTextModel:
    """Loads an image-text model.

    Args:
        name_or_folder: ``"shapes-clip"``; ``MODEL/TAG`` of open_clip such as ``"ViT-L-14/laion2b_s32b_b82k"``;
            ``MODEL/TAG=FILE`` or ``MODEL=FILE`` with the weights in a file; a folder in open_clip's own form.
        device: Torch device, or ``"auto"``.

    Raises:
        InputError: As for `load_detector`.
    """
    name = str(name_or_folder)
    if name not in SHIPPED and not Path(name).exists() and ("/" in name or "=" in name):
        from instbench.evaluators.open_clip_weights import is_open_clip_name, load_open_clip

        if is_open_clip_name(name):
            return load_open_clip(name, device=device)
    folder = _folder(name_or_folder, "image-text model")
    from instbench.evaluators.image_text import OpenClipImageText

    return OpenClipImageText.from_folder(folder, device=device)


def load_features(name_or_folder: str | Path, device: str | torch.device = "auto") -> FeatureExtractor:
    """Loads a feature extractor.

    Args:
        name_or_folder: ``"shapes-features"``; ``"inception"`` (Inception v3 of FID, resized as torchmetrics does) or
            ``"inception-tf1"`` (as torch-fidelity does), with the published file in the folder of weights; the
            path of such a ``.pth`` file; a folder with ``evaluator.json``.
        device: Torch device, or ``"auto"``.

    Raises:
        InputError: As for `load_detector`.
    """
    name = str(name_or_folder)
    if name in _INCEPTION or (name.endswith(".pth") and not Path(name).is_dir()):
        from instbench.evaluators.inception import InceptionFeatures

        path = find_weights(INCEPTION) if name in _INCEPTION else Path(name)
        return InceptionFeatures(path, resize=_INCEPTION.get(name, "antialias"), device=device)
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
    hint = did_you_mean(str(name_or_folder), [*names, *_OTHERS[role]])
    raise InputError(
        f"unknown {role} {str(name_or_folder)!r}; {hint} (a folder with evaluator.json does too)"
    )
