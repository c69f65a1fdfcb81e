"""Recorded inputs and outputs of the published implementation, at reduced size with random weights.

The numbers were recorded by running the published InstanceDiffusion code on a CPU (float32). The weights
had been rounded to float16 before, so they are exact. `weights.npz` holds their low and high bytes apart,
which compresses better.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_model.checkpoints import unet_from_published
from reference_model.unet import InstanceUNet

FIXTURES = Path(__file__).parent / "fixtures"
CONFIGS = ("box", "mask", "point", "scribble")


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """`max|difference| / max(1, max|expected|)` of an actual and an expected tensor."""

    def measure(actual: Tensor, expected: Tensor) -> float:
        difference = (actual.detach() - expected.detach()).abs().max()
        return float(difference / expected.detach().abs().max().clamp(min=1))

    return measure


def read_group(group: str) -> dict[str, Tensor]:
    """The recorded tensors of one group, such as "inputs" or "unet"."""
    with np.load(FIXTURES / "modules.npz") as arrays:
        return {
            name.split("/", 1)[1]: torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith(f"{group}/")
        }


@pytest.fixture(scope="session")
def load_arrays() -> Callable[[str], dict[str, Tensor]]:
    """Loader of the recorded tensors of one group: "fourier", "unifusion", "unet", ..."""
    return read_group


@pytest.fixture(scope="session")
def published_weights() -> dict[str, Tensor]:
    """`checkpoint["model"]` of the recorded model, float16."""
    with np.load(FIXTURES / "weights.npz") as arrays:
        planes = np.stack((arrays["low"], arrays["high"]), axis=1)
        shapes = json.loads(str(arrays["shapes"]))
    flat = torch.from_numpy(planes.reshape(-1).view(np.float16).copy())
    parts = flat.split([int(np.prod(shape)) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


@pytest.fixture(scope="session")
def published_params() -> dict[str, Any]:
    """`model.params` of its YAML."""
    config = json.loads((FIXTURES / "config.json").read_text())["config"]
    dims = {"in_dim": config["context_dim"], "out_dim": config["context_dim"], "mid_dim": config["mid_dim"]}
    names = ("image_size", "model_channels", "channel_mult", "num_res_blocks", "num_heads", "context_dim")
    return {
        **{name: config[name] for name in names},
        "attention_resolutions": config["attention_resolutions"],
        "in_channels": 4,
        "out_channels": 4,
        "grounding_tokenizer": {"params": dims},
    }


@pytest.fixture(scope="session")
def golden_unet(published_weights: dict[str, Tensor], published_params: dict[str, Any]) -> InstanceUNet:
    """The recorded model. Shared by all tests: leave it as it is."""
    return unet_from_published(published_weights, published_params).requires_grad_(False)


@pytest.fixture(scope="session")
def golden_inputs() -> dict[str, Tensor]:
    """Latents, contexts and noises: x2, context2, uc2, context1, uc1, context_inst, noise1, ..."""
    return read_group("inputs")


@pytest.fixture(scope="session")
def golden_grounding(golden_inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Arguments of UniFusion for both samples, plus `att_masks`."""
    prefix = "ground2."
    grounding = {
        name.removeprefix(prefix): tensor for name, tensor in golden_inputs.items() if name.startswith(prefix)
    }
    bits = np.unpackbits(golden_inputs["segs_packedbits_u8"].numpy()).reshape(3, 512, 512)
    masks = torch.from_numpy(bits).float()
    segs = torch.zeros(2, 30, 512, 512)
    segs[0, :3] = masks
    segs[1, 0], segs[1, 1] = masks[2], masks[0]
    return {**grounding, "segs": segs}


@pytest.fixture(scope="session")
def golden_keep() -> dict[str, tuple[str, ...]]:
    """Formats kept by each published test configuration."""
    flags = json.loads((FIXTURES / "config.json").read_text())["test_flags"]
    plural = {"box": "boxes", "point": "points", "scribble": "scribbles", "mask": "masks"}
    return {
        config: tuple(name for name, key in plural.items() if not flags[config][f"test_drop_{key}"])
        for config in CONFIGS
    }


@pytest.fixture(scope="session")
def golden_tokens(
    golden_unet: InstanceUNet,
    golden_grounding: dict[str, Tensor],
    golden_keep: dict[str, tuple[str, ...]],
) -> dict[str, Tensor]:
    """Tokens per configuration, and "null" for the unconditional branch."""
    inputs = {name: tensor for name, tensor in golden_grounding.items() if name != "att_masks"}
    tokens = {config: golden_unet.position_net(**inputs, keep=keep) for config, keep in golden_keep.items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}
    return {**tokens, "null": golden_unet.position_net(**zeros)}


@pytest.fixture(scope="session")
def tiny_config() -> dict[str, Any]:
    """A model small enough for tests of behaviour."""
    return {
        "sample_size": 8,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "max_instances": 4,
        "segment_size": 64,
        "convnext_depths": [1, 1, 1, 1],
        "convnext_widths": [8, 8, 8, 8],
        "grounding_mid_dim": 32,
    }


@pytest.fixture
def tiny_unet(tiny_config: dict[str, Any]) -> InstanceUNet:
    """A fresh tiny model in eval mode whose gates are open."""
    torch.manual_seed(0)
    unet = InstanceUNet(**tiny_config).eval()
    for name, parameter in unet.named_parameters():
        if "alpha_" in name or "null_" in name:
            torch.nn.init.normal_(parameter)
    return unet


@pytest.fixture(scope="session")
def tiny_grounding() -> dict[str, Tensor]:
    """Arguments of UniFusion for the tiny model: two samples, two and one filled slots."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    filled = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]])
    shown = filled[..., None]
    return {
        "boxes": rand(2, 4, 4) * shown,
        "masks": filled,
        "positive_embeddings": rand(2, 4, 32) * shown,
        "scribbles": rand(2, 4, 40) * shown,
        "polygons": rand(2, 4, 512) * shown,
        "segs": (rand(2, 4, 64, 64) > 0.5).float() * shown[..., None],
        "points": rand(2, 4, 2) * shown,
    }
