"""The feature extractor of published FIDs: Inception v3 with TensorFlow's weights, from torch-fidelity."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.folders import default_batch_size, one_line
from instbench.runs.atomic import sha256_file
from reference_model.checkpoints import CheckpointError, open_checkpoint
from reference_model.checkpoints.tensors import LazyTensor, check_finite

__all__ = ["RESIZE_RULES", "InceptionFeatures", "ResizeRule"]

ResizeRule = Literal["antialias", "tensorflow1"]

RESIZE_RULES: Mapping[ResizeRule, str] = {
    "antialias": "bilinear antialiased to 299x299, aspect not kept (torchmetrics)",
    "tensorflow1": "bilinear as TensorFlow 1 to 299x299, aspect not kept (torch-fidelity, pytorch-fid)",
}
"""How images come to the network's size; numbers of different rules must not be compared."""

_SIDE = 299
_MAX_NUMBERS = 2**25
"""The published file holds 24 million."""
_NAME = "inception-v3-compat"


class InceptionFeatures:
    """The 2048 pooled features of Inception v3, as torchmetrics' ``FrechetInceptionDistance(feature=2048)``.

    Args:
        weights: The ``.pth`` file of torch-fidelity; it is read without running anything in it.
        resize: How images come to 299x299.
        device: Where to run.
        batch_size: Images per forward pass; None takes one on the CPU, 32 on an accelerator.

    Raises:
        InputError: The file is missing, damaged or of another network.
    """

    num_features = 2048

    def __init__(
        self,
        weights: Path | str,
        *,
        resize: ResizeRule = "antialias",
        device: str | torch.device = "auto",
        batch_size: int | None = None,
    ) -> None:
        weights = Path(weights)
        self._device = resolve_device(device)
        self._network = _load_network(weights, antialias=resize == "antialias").to(self._device)
        self._hashes = {weights.name: sha256_file(weights)}
        self._batch_size = batch_size or default_batch_size(self._device, 32)
        self.resize = resize

    def identity(self) -> Mapping[str, Any]:
        """Kind, SHA-256 of the weights, the resize rule and the number of features."""
        return {
            "kind": _NAME,
            "resize": RESIZE_RULES[self.resize],
            "num_features": self.num_features,
            "sha256": dict(self._hashes),
        }

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Pooled features.

        Args:
            images: Images of any size; converted to RGB.

        Returns:
            float32 [len(images), 2048].
        """
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(images), self._batch_size):
            chunk = [_resizable(image) for image in images[start : start + self._batch_size]]
            # Images of one size go through together; resizing is the network's own first step.
            same = all(one.shape == chunk[0].shape for one in chunk)
            batches = [torch.stack(chunk)] if same else [one[None] for one in chunk]
            rows += [self._network(batch.to(self._device)).float().cpu().numpy() for batch in batches]
        return np.concatenate(rows) if rows else np.zeros((0, self.num_features), np.float32)


def _resizable(image: Image.Image) -> torch.Tensor:
    """Pixels as uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _load_network(path: Path, *, antialias: bool) -> nn.Module:
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise InputError(
            f"the Inception features need torchmetrics ({one_line(error)}); install it"
        ) from None
    state: dict[str, torch.Tensor] = {}
    try:
        with open_checkpoint(path) as content:
            for name, tensor in content.items():
                if not isinstance(tensor, LazyTensor):
                    raise InputError(f"{path}: {name} is no tensor; give the weights of torch-fidelity")
            numbers = sum(math.prod(tensor.shape) for tensor in content.values())
            if numbers > _MAX_NUMBERS:
                raise InputError(
                    f"{path}: holds {numbers} numbers, more than the Inception v3 of FID; give torch-fidelity's"
                )
            state = {name: tensor.read() for name, tensor in content.items()}
        check_finite(state, str(path))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    # torch-fidelity unpickles whatever file it is given, so it gets the tensors that were read safely.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = NoTrainInceptionV3(
            name=_NAME,
            features_list=["2048"],
            feature_extractor_weights_path=buffer,
            antialias=antialias,
        )
    except ModuleNotFoundError:
        raise InputError("the Inception features need torch-fidelity; pip install torch-fidelity") from None
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the weights of the Inception v3 of FID ({one_line(error)[:120]}); give torch-fidelity's"
        ) from None
    return cast(nn.Module, network.requires_grad_(False))
