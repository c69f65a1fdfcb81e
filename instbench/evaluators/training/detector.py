"""The detector recipe: a small ultralytics YOLO segmentation network on Shapes scenes.

The network, its loss and its target assignment are ultralytics'; the loop is our own, so that exact
masks (not polygons) are learnt, a run can be continued, and nothing is pickled but tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from torch import nn

from instbench.errors import InputError
from instbench.evaluators.folders import DetectorCard, load_weights, read_card
from instbench.evaluators.training.augment import degrade
from instbench.evaluators.training.loop import LoopSettings, TrainedModel, batch_indices, run_loop
from instbench.evaluators.training.scenes import SceneSet
from instbench.evaluators.yolo_model import build_segmentation_model, quiet_ultralytics

__all__ = ["ARCHITECTURE", "detector_batch", "train_detector"]

logger = logging.getLogger(__name__)

ARCHITECTURE = Path(__file__).with_name("shapes-yolo.yaml")

LOSS_GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, overlap_mask=True)
"""ultralytics' default gains; masks come as one index map per image."""


def train_detector(
    scenes: SceneSet, settings: LoopSettings, out: Path, start: Path | None = None
) -> tuple[TrainedModel, dict[str, Any]]:
    """Trains the network.

    Args:
        scenes: Training scenes; their categories become those of the detector.
        settings: Settings of the loop.
        out: Folder of the checkpoint and the log.
        start: Evaluator folder whose weights training starts from; random weights by default.

    Returns:
        The trained model and its architecture.

    Raises:
        InputError: The weights to start from do not fit, or know other categories.
    """
    spec = yaml.safe_load(ARCHITECTURE.read_text(encoding="utf-8"))
    torch.manual_seed(settings.seed)
    model = build_segmentation_model(spec, len(scenes.categories), str(ARCHITECTURE))
    if start is not None:
        known = read_card(start, DetectorCard).categories
        if known != scenes.categories:
            raise InputError(f"{start}: categories {known} are not those of the data, {scenes.categories}")
        load_weights(model, start / "model.safetensors")
    with quiet_ultralytics():
        from ultralytics.utils.loss import v8SegmentationLoss
    model.args = LOSS_GAINS  # type: ignore[assignment]
    criterion = v8SegmentationLoss(model)
    class_of = {name: position for position, name in enumerate(scenes.categories)}

    def compute_loss(network: nn.Module, step: int, rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        indices = batch_indices(len(scenes), settings.batch_size, step, settings.seed)
        batch = detector_batch(scenes, indices, class_of, rng)
        total, parts = criterion(network(batch["img"]), batch)
        values = parts.values() if isinstance(parts, Mapping) else parts
        names = ("box", "mask", "class", "dfl")
        # ultralytics sums over the batch; the mean keeps gradient clipping independent of its size.
        return {"loss": total.sum() / len(indices), **dict(zip(names, values, strict=False))}

    trained = run_loop(model, compute_loss, settings, out)
    return trained, spec


def detector_batch(
    scenes: SceneSet, indices: np.ndarray, class_of: Mapping[str, int], rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Makes a batch in ultralytics' format, with random flips, zoom and degradations.

    Args:
        scenes: The scenes.
        indices: Which of them, int64 [B].
        class_of: Class index of every category name.
        rng: Source of randomness.

    Returns:
        ``img`` float32 [B, 3, H, W] in [0, 1]; ``masks`` uint8 [B, H/2, W/2] index maps;
        ``batch_idx`` float32 [M]; ``cls`` float32 [M, 1]; ``bboxes`` float32 [M, 4], relative xywh.
    """
    height, width = scenes.images.shape[1:3]
    images, maps, owners, classes, boxes = [], [], [], [], []
    # One of the four pixels of a 2x2 cell stands for it; the choice varies, so that masks have no offset.
    row, column = (int(v) for v in rng.integers(0, 2, size=2))
    for position, index in enumerate(indices):
        objects = scenes.objects[index]
        image, instances, corners = scenes.images[index], scenes.instance_maps[index], objects.boxes_xyxy
        if rng.random() < 0.5:
            image, instances, corners = _zoom(image, instances, corners, rng)
        if rng.random() < 0.5:
            image, instances = image[:, ::-1], instances[:, ::-1]
            corners = np.stack(
                [width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], axis=1
            )
        image = degrade(np.ascontiguousarray(image), rng)
        images.append(image)
        maps.append(np.ascontiguousarray(instances[row::2, column::2]))
        owners += [position] * len(objects)
        classes += [class_of[name] for name in objects.categories]
        boxes.append(corners)
    corners = np.concatenate(boxes) / np.array([width, height, width, height], np.float32)
    xywh = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    return {
        "img": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 255,
        "masks": torch.from_numpy(np.stack(maps)),
        "batch_idx": torch.tensor(owners, dtype=torch.float32),
        "cls": torch.tensor(classes, dtype=torch.float32).view(-1, 1),
        "bboxes": torch.from_numpy(xywh.astype(np.float32)),
    }


def _zoom(
    image: np.ndarray, instances: np.ndarray, corners: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales and shifts a scene such that every object stays inside; sizes vary beyond those of the world."""
    height, width = instances.shape
    x0, y0 = corners[:, :2].min(axis=0)
    x1, y1 = corners[:, 2:].max(axis=0)
    largest = min(1.2, (width - 2) / (x1 - x0), (height - 2) / (y1 - y0))
    scale = rng.uniform(0.8, max(0.81, largest))
    canvas = np.array([width, height], np.float64)
    low, high = -scale * np.array([x0, y0]), canvas - scale * np.array([x1, y1])
    # Around the shift that keeps the canvas centred, and no further than keeps the objects inside.
    centre = np.clip((1 - scale) * canvas / 2, low, high)
    shift = rng.uniform(np.maximum(low, centre - 16), np.minimum(high, centre + 16))
    # Pixel i covers [i, i + 1): the half-pixel terms keep boxes and pixels in one frame.
    offset = shift + 0.5 * scale - 0.5
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]], np.float64)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    instances = cv2.warpAffine(instances, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=0)
    boxes = corners * scale + np.tile(shift, 2)
    limits = np.array([width, height, width, height], np.float32)
    return moved, instances, np.clip(boxes, 0, limits).astype(np.float32)
