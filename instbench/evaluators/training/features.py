"""The feature-extractor recipe: a small transformers ResNet that learns what a scene contains.

Its targets are everything a scene is made of (shapes, colours, textures, their pairs, the background,
the number of objects) and how degraded the picture is, so that the pooled features move with content
and with picture quality alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from instbench.evaluators.features import build_resnet, to_network_input
from instbench.evaluators.folders import FeaturesCard
from instbench.evaluators.training.augment import degrade
from instbench.evaluators.training.loop import LoopSettings, TrainedModel, batch_indices, run_loop
from instbench.evaluators.training.scenes import SceneSet

__all__ = ["MODEL_CONFIG", "SceneContentNetwork", "content_targets", "train_features"]

logger = logging.getLogger(__name__)

MODEL_CONFIG: dict[str, Any] = {
    "model_type": "resnet",
    "num_channels": 3,
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64, 96],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
}

_DEGRADED_SHARE = 0.4


class SceneContentNetwork(nn.Module):
    """The feature extractor with a linear head for training.

    Args:
        num_targets: Yes-no targets; one more output is the number of objects.
    """

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.backbone = build_resnet(MODEL_CONFIG)
        self.head = nn.Linear(MODEL_CONFIG["hidden_sizes"][-1], num_targets + 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, S, S] to logits float32 [B, num_targets + 1]."""
        result: torch.Tensor = self.head(self.backbone(pixels).pooler_output.flatten(1))
        return result


def content_targets(scenes: SceneSet) -> tuple[np.ndarray, tuple[str, ...]]:
    """What every scene contains.

    Args:
        scenes: The scenes.

    Returns:
        float32 [N, T] of zeros and ones, and the T names, e.g. ``"shape star"`` or ``"red striped"``.
    """
    colors = sorted({word for objects in scenes.objects for word in objects.colors})
    textures = sorted({word for objects in scenes.objects for word in objects.textures})
    backgrounds = sorted({word for text in scenes.backgrounds for word in text.split()})
    names = [f"shape {w}" for w in scenes.categories] + [f"color {w}" for w in colors]
    names += [f"texture {w}" for w in textures] + [f"background {w}" for w in backgrounds]
    names += [f"{a} {b}" for a, b in product(colors, textures)]
    names += [f"{a} {b}" for a, b in product(colors, scenes.categories)]
    place = {name: position for position, name in enumerate(names)}
    targets = np.zeros((len(scenes), len(names)), np.float32)
    for row, objects, background in zip(targets, scenes.objects, scenes.backgrounds, strict=True):
        present = [f"background {word}" for word in background.split()]
        for color, texture, shape in zip(objects.colors, objects.textures, objects.categories, strict=True):
            present += [
                f"shape {shape}",
                f"color {color}",
                f"texture {texture}",
                f"{color} {texture}",
                f"{color} {shape}",
            ]
        row[[place[name] for name in present]] = 1
    return targets, tuple(names)


def train_features(scenes: SceneSet, settings: LoopSettings, out: Path) -> tuple[TrainedModel, FeaturesCard]:
    """Trains the network.

    Args:
        scenes: Training scenes.
        settings: Settings of the loop.
        out: Folder of the checkpoint and the log.

    Returns:
        The trained `SceneContentNetwork` and the card of its backbone.
    """
    targets, names = content_targets(scenes)
    counts = np.array([len(objects) for objects in scenes.objects], np.float32)
    card = FeaturesCard(image_size=int(scenes.images.shape[1]))
    torch.manual_seed(settings.seed)
    model = SceneContentNetwork(len(names) + 1)

    def compute_loss(network: nn.Module, step: int, rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        indices = batch_indices(len(scenes), settings.batch_size, step, settings.seed)
        degraded = rng.random(len(indices)) < _DEGRADED_SHARE
        pictures = []
        for index, harm in zip(indices, degraded, strict=True):
            image = scenes.images[index]
            if rng.random() < 0.5:
                image = np.ascontiguousarray(image[:, ::-1])
            pictures.append(Image.fromarray(degrade(image, rng, clean_share=0.0) if harm else image))
        logits = network(to_network_input(pictures, card))
        wanted = np.concatenate([targets[indices], degraded[:, None].astype(np.float32)], axis=1)
        content = F.binary_cross_entropy_with_logits(logits[:, :-1], torch.from_numpy(wanted))
        number = F.smooth_l1_loss(logits[:, -1], torch.from_numpy(counts[indices]))
        return {"loss": content + 0.05 * number, "content": content, "count": number}

    return run_loop(model, compute_loss, settings, out), card
