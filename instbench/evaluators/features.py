"""The feature extractor for FID: a transformers ResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.folders import (
    FeaturesCard,
    check_room,
    default_batch_size,
    file_hashes,
    load_weights,
    one_line,
    read_card,
    read_json,
)

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "ResNetFeatures", "build_resnet", "to_network_input"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def build_resnet(config: Mapping[str, Any], source: str = CONFIG_NAME) -> nn.Module:
    """Builds an untrained ``transformers.ResNetModel`` from its configuration.

    Raises:
        InputError: A field is wrong.
    """
    from transformers import ResNetConfig, ResNetModel

    try:
        model: nn.Module = ResNetModel(ResNetConfig.from_dict(dict(config)))
    # The validation errors of transformers configurations differ between versions and share no base class.
    except Exception as error:
        raise InputError(f"{source}: not a ResNet that transformers can build ({one_line(error)})") from error
    return model


def to_network_input(images: Sequence[Image.Image], card: FeaturesCard) -> torch.Tensor:
    """Resizes (bicubic, antialiased, aspect not kept) and normalises; float32 [B, 3, S, S]."""
    side = (card.image_size, card.image_size)
    resized = [
        np.asarray(image if image.size == side else image.resize(side, Image.Resampling.BICUBIC))
        for image in (image.convert("RGB") for image in images)
    ]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(card.mean).view(3, 1, 1), torch.tensor(card.std).view(3, 1, 1)
    return (pixels - mean) / std


class ResNetFeatures:
    """Globally pooled features of a ResNet.

    Args:
        model: A ``transformers.ResNetModel`` with weights.
        card: Input size and normalisation.
        hashes: SHA-256 of the files that the model was made from.
        device: Where to run.
        batch_size: Images per forward pass; None takes one on the CPU, 32 on an accelerator.
    """

    def __init__(
        self,
        model: nn.Module,
        card: FeaturesCard,
        hashes: Mapping[str, str] | None = None,
        *,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
    ) -> None:
        self._device = resolve_device(device)
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._hashes = dict(hashes or {})
        self._batch_size = batch_size or default_batch_size(self._device, 32)
        self.card = card
        self.num_features = int(cast(Any, model).config.hidden_sizes[-1])

    @classmethod
    def from_folder(cls, folder: Path | str, *, device: str | torch.device = "auto") -> ResNetFeatures:
        """Loads ``evaluator.json``, ``config.json`` and ``model.safetensors``.

        Raises:
            InputError: Something is missing or broken, or the weights are a pickle.
        """
        folder = Path(folder)
        card = read_card(folder, FeaturesCard)
        config = read_json(folder / CONFIG_NAME)

        def build() -> nn.Module:
            return build_resnet(config, str(folder / CONFIG_NAME))

        check_room(build, config, folder / CONFIG_NAME, folder / WEIGHTS_NAME)
        model = build()
        load_weights(model, folder / WEIGHTS_NAME)
        return cls(model.float(), card, file_hashes(folder, (CONFIG_NAME, WEIGHTS_NAME)), device=device)

    def identity(self) -> Mapping[str, Any]:
        """Kind, SHA-256 of the files, the resize rule and the number of features."""
        return {
            "kind": self.card.kind,
            "resize": f"bicubic antialiased to {self.card.image_size}x{self.card.image_size}, aspect not kept",
            "num_features": self.num_features,
            "sha256": dict(self._hashes),
        }

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Pooled features.

        Args:
            images: Images of any size.

        Returns:
            float32 [len(images), num_features].
        """
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(images), self._batch_size):
            batch = to_network_input(images[start : start + self._batch_size], self.card).to(self._device)
            rows.append(self._model(batch).pooler_output.flatten(1).float().cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self.num_features), np.float32)
