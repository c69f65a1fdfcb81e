"""Cached latents: every image of a training folder, encoded once."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from reference_model.training.canvas import load_image
from reference_model.training.data import CocoFolder, cached_images, read_folder

__all__ = ["encode_folder", "load_autoencoder", "main"]

logger = logging.getLogger(__name__)


def load_autoencoder(folder: Path) -> Any:
    """Loads an autoencoder of any of diffusers' classes, in float32.

    Raises:
        ValueError: If the folder holds none.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"{folder}: holds no config.json; give the folder of an autoencoder")
    # The class is part of its config; diffusers has several.
    name = json.loads(config.read_text(encoding="utf-8")).get("_class_name", "")
    if not name.startswith("Autoencoder") or not hasattr(diffusers, name):
        raise ValueError(
            f"{config}: _class_name {name!r} is no autoencoder of diffusers; give another folder"
        )
    return getattr(diffusers, name).from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True, use_safetensors=True
    )


@torch.no_grad()
def _encoded(vae: Any, images: NDArray[np.uint8]) -> Tensor:
    """Latents of uint8 ``[B, H, W, 3]`` as the UNet takes them; the mean where the encoder gives a distribution.

    The published training draws from the distribution, whose spread is small.
    """
    pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).to(vae.device)
    encoded = vae.encode(pixels.float() / 127.5 - 1)
    latents = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    scaled: Tensor = (latents - shift) * vae.config.scaling_factor
    return scaled


def encode_folder(
    vae: Any,
    folder: CocoFolder,
    output: Path,
    *,
    side: int | None = None,
    flip: bool = False,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> float:
    """Encodes every image of a folder to its latents times the scaling factor.

    Args:
        vae: Autoencoder of diffusers; its ``scaling_factor`` is applied.
        folder: Images to encode.
        output: Target ``.npy``: float16 ``[N, C, H / f, W / f]`` in the order of ``folder.scenes``; appears when
            it is complete.
        side: Side of the square canvas, see `Canvas`; None takes images of one size as they are.
        flip: Encode the mirrored images.
        batch_size: Images per batch.
        device: Where to encode.

    Returns:
        Images per second.

    Raises:
        ValueError: If an image is damaged or of another size than its annotation says.
    """
    total = len(folder.scenes)
    whole = cached_images(folder) if side is None else None

    def pixels(first: int, last: int) -> NDArray[np.uint8]:
        if whole is not None:
            images = np.asarray(whole[first:last])
        else:
            scenes = folder.scenes[first:last]
            images = np.stack([load_image(scene.path, scene.size, side) for scene in scenes])
        return images[:, :, ::-1] if flip else images

    vae = vae.to(device).eval()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".part")
    memory: np.memmap[Any, Any] | None = None
    started = time.monotonic()
    with Progress(transient=True) as progress:
        task = progress.add_task("encoding", total=total)
        for at in range(0, total, batch_size):
            latents = _encoded(vae, pixels(at, min(at + batch_size, total))).cpu().numpy().astype(np.float16)
            if memory is None:
                shape = (total, *latents.shape[1:])
                memory = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
            memory[at : at + len(latents)] = latents
            progress.advance(task, len(latents))
    if memory is not None:
        memory.flush()
        partial.replace(output)
    return total / (time.monotonic() - started)


def main(argv: list[str] | None = None) -> int:
    """Command line that caches the latents of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m reference_model.training latents", description="Encode a folder's images once."
    )
    parser.add_argument("--data", type=Path, required=True, help="COCO-format folder")
    parser.add_argument("--vae", type=Path, required=True, help="autoencoder folder")
    parser.add_argument("-o", "--output", type=Path, help="target file (default: DATA/latents.npy)")
    parser.add_argument("--size", type=int, help="side of the square canvas; default: images as they are")
    parser.add_argument(
        "--flip", action="store_true", help="mirror the images (default: latents-flipped.npy)"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    vae = load_autoencoder(arguments.vae)
    name = "latents-flipped.npy" if arguments.flip else "latents.npy"
    output = arguments.output or arguments.data / name
    folder = read_folder(arguments.data)
    rate = encode_folder(
        vae,
        folder,
        output,
        side=arguments.size,
        flip=arguments.flip,
        batch_size=arguments.batch_size,
        device=arguments.device,
    )
    logger.info("%s: %d images at %.0f images/s", output, len(folder.scenes), rate)
    return 0
