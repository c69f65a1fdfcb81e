"""The image-text recipe: a small open_clip model on object crops and phrases.

Two losses are added. One is CLIP's contrastive loss between crops and phrases of the batch, in which
every phrase that is true of a crop counts as a positive. The other compares a crop with whole sets of
prompts of which exactly one is true ("a red object", "a blue object", ...), as scoring does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from instbench.evaluators.image_text import build_clip, clip_tokenizer
from instbench.evaluators.training.augment import degrade
from instbench.evaluators.training.loop import LoopSettings, TrainedModel, batch_indices, run_loop
from instbench.evaluators.training.scenes import SceneSet

__all__ = ["COLOR_PROMPT", "PREPROCESS", "TEXTURE_PROMPT", "crop_box", "model_config", "train_image_text"]

logger = logging.getLogger(__name__)

COLOR_PROMPT = TEXTURE_PROMPT = "a {} object"
SHAPE_PROMPT = "a {}"

PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}

_TEMPLATES = (
    "{color} {texture} {shape}",
    "{color} {shape}",
    "{texture} {shape}",
    "{shape}",
    "a {color} {texture} {shape}",
    "a {color} {shape}",
    "a {color} {texture} object",
    "a {color} object",
    "a {texture} object",
)


@dataclass(frozen=True, slots=True)
class _Text:
    """A phrase and what it claims; an empty word claims nothing."""

    phrase: str
    color: str
    texture: str
    shape: str

    def is_true_of(self, color: str, texture: str, shape: str) -> bool:
        return self.color in ("", color) and self.texture in ("", texture) and self.shape in ("", shape)


def model_config(vocab_size: int, end_id: int, image_size: int = 64) -> dict[str, Any]:
    """open_clip's configuration of the shipped model."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": image_size, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
        "text_cfg": {
            "context_length": 24,
            "vocab_size": vocab_size,
            "width": 96,
            "heads": 4,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": end_id,
        },
    }


def crop_box(
    image: np.ndarray, box: Sequence[float], rng: np.random.Generator | None = None, jitter: float = 0.1
) -> np.ndarray:
    """Cuts a box out of an image, with random sides where a generator is given.

    Args:
        image: uint8 [H, W, 3].
        box: xyxy in pixels.
        rng: Source of jitter; None cuts the box as it is.
        jitter: Largest shift of a side, in shares of the box; outwards twice as far as inwards.

    Returns:
        uint8 [h, w, 3], at least one pixel each way.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    if rng is not None:
        left, top, right, bottom = rng.uniform(-0.5 * jitter, jitter, size=4)
        x0, x1 = x0 - left * (x1 - x0), x1 + right * (x1 - x0)
        y0, y1 = y0 - top * (y1 - y0), y1 + bottom * (y1 - y0)
    c0, r0 = int(np.clip(np.floor(x0), 0, width - 1)), int(np.clip(np.floor(y0), 0, height - 1))
    c1, r1 = int(np.clip(np.ceil(x1), c0 + 1, width)), int(np.clip(np.ceil(y1), r0 + 1, height))
    return image[r0:r1, c0:c1]


def train_image_text(
    scenes: SceneSet, settings: LoopSettings, out: Path, tokenizer: Path
) -> tuple[TrainedModel, dict[str, Any]]:
    """Trains the model.

    Args:
        scenes: Training scenes; every object is one crop.
        settings: Settings of the loop.
        out: Folder of the checkpoint and the log.
        tokenizer: Folder that contains ``tokenizer/`` with a ``CLIPTokenizer``.

    Returns:
        The trained model and its open_clip configuration.
    """
    from transformers import CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(tokenizer / "tokenizer", local_files_only=True)
    config = model_config(len(words), int(words.eos_token_id))
    torch.manual_seed(settings.seed)
    model = build_clip(config)
    tokenize = clip_tokenizer(tokenizer, config["text_cfg"]["context_length"])
    items = [
        (scene, number) for scene, objects in enumerate(scenes.objects) for number in range(len(objects))
    ]
    groups = _prompt_groups(scenes)
    size = int(config["vision_cfg"]["image_size"])

    def compute_loss(network: nn.Module, step: int, rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        chosen = [items[i] for i in batch_indices(len(items), settings.batch_size, step, settings.seed)]
        return _loss(network, scenes, chosen, groups, tokenize, size, rng)

    return run_loop(model, compute_loss, settings, out), config


def _prompt_groups(scenes: SceneSet) -> dict[str, list[_Text]]:
    colors = sorted({word for objects in scenes.objects for word in objects.colors})
    textures = sorted({word for objects in scenes.objects for word in objects.textures})
    return {
        "color": [_Text(COLOR_PROMPT.format(word), word, "", "") for word in colors],
        "texture": [_Text(TEXTURE_PROMPT.format(word), "", word, "") for word in textures],
        "shape": [_Text(SHAPE_PROMPT.format(word), "", "", word) for word in scenes.categories],
    }


def _phrase(words: tuple[str, str, str], rng: np.random.Generator) -> _Text:
    template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
    color, texture, shape = words
    return _Text(
        template.format(color=color, texture=texture, shape=shape),
        color if "{color}" in template else "",
        texture if "{texture}" in template else "",
        shape if "{shape}" in template else "",
    )


def _loss(
    model: nn.Module,
    scenes: SceneSet,
    chosen: Sequence[tuple[int, int]],
    groups: Mapping[str, Sequence[_Text]],
    tokenize: Callable[[Sequence[str]], torch.Tensor],
    size: int,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    crops, words = [], []
    for scene, number in chosen:
        objects = scenes.objects[scene]
        crop = degrade(crop_box(scenes.images[scene], objects.boxes_xyxy[number], rng), rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        resized = Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BICUBIC)
        crops.append(np.asarray(resized))
        words.append((objects.colors[number], objects.textures[number], objects.categories[number]))
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(PREPROCESS["mean"]).view(3, 1, 1), torch.tensor(PREPROCESS["std"]).view(3, 1, 1)
    clip = cast(Any, model)
    images = clip.encode_image((pixels - mean) / std, normalize=True)

    phrases = list(dict.fromkeys(_phrase(word, rng) for word in words))
    prompts = [text for group in groups.values() for text in group]
    encoded = clip.encode_text(tokenize([t.phrase for t in (*phrases, *prompts)]), normalize=True)
    logits = clip.logit_scale.exp().clamp(max=100.0) * images @ encoded.T

    true = torch.tensor([[text.is_true_of(*word) for text in phrases] for word in words], dtype=torch.float32)
    batch = logits[:, : len(phrases)]
    contrastive = 0.5 * (_soft_cross_entropy(batch, true) + _soft_cross_entropy(batch.T, true.T))
    losses = {"contrastive": contrastive}
    start = len(phrases)
    for name, group in groups.items():
        answers = torch.tensor(
            [[text.is_true_of(*word) for text in group] for word in words], dtype=torch.float32
        )
        losses[name] = _soft_cross_entropy(logits[:, start : start + len(group)], answers)
        start += len(group)
    return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def _soft_cross_entropy(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the target spread evenly over the positives of a row; rows without one count nothing."""
    counts = positives.sum(dim=1, keepdim=True)
    rows = -(F.log_softmax(logits, dim=1) * positives / counts.clamp(min=1)).sum(dim=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)
