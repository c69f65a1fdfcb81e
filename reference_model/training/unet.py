"""Trains the grounded UNet on cached latents, alone or with several processes.

One process: ``python -m reference_model.training unet --data DIR …``; several:
``ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m reference_model.training unet --data DIR …``.

Without ``--base`` everything is trained from scratch. With it, training starts from a Stable Diffusion 1.x
model; with ``--init``, from a UNet that this part trained, also with grounding parts of another kind. The
recipe ``paper`` leaves the base's weights as they are: only UniFusion, the gated layers and ScaleU learn.
The schedule is warm-up, constant, linear cool-down. A run is resumed from its folder; the number of
steps may be changed when resuming (longer or shorter), everything else must stay.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from reference_model.training.base import (
    check_noise_schedule,
    freeze_base,
    load_segment_backbone,
    load_start,
    unet_folder,
    unet_from_base,
    weights_sha256,
)
from reference_model.training.grounded_data import GroundedDataset
from reference_model.training.locations import Locations, build_location_cache
from reference_model.training.recipe import (
    RECIPES,
    UNetRecipe,
    learning_rate_factor,
    recipe_from_overrides,
    shapes_unet,
)
from reference_model.training.texts import LiveStates, embed_texts
from reference_model.training.trainer import LoopOptions, Trainer, run
from reference_model.unet import InstanceUNet

__all__ = ["UNetRecipe", "learning_rate_factor", "main", "recipe_from_overrides", "shapes_unet"]

logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reference_model.training unet", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="COCO-format folder")
    parser.add_argument("--latents", type=Path, required=True, help="latents.npy of the same folder")
    parser.add_argument("--flipped-latents", type=Path, help="latents of the mirrored images")
    parser.add_argument(
        "--base", type=Path, help="Stable Diffusion 1.x pipeline (or UNet) folder to start from"
    )
    parser.add_argument("--init", type=Path, help="folder of a trained InstanceUNet to start from")
    parser.add_argument("--text-encoder", type=Path, help="default: that of the base")
    parser.add_argument("--tokenizer", type=Path, help="default: that of the base")
    parser.add_argument("--texts", type=Path, help="cache of text states; default: texts below the output")
    parser.add_argument(
        "--segment-backbone", type=Path, help="file of a trained ConvNeXt for the segment branch"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="shapes", help="default: shapes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=JSON", help="override a recipe value"
    )
    parser.add_argument("--max-minutes", type=float, help="stop (resumable) after this long")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0)
    return parser


def _latents(path: Path, recipe: UNetRecipe) -> NDArray[np.float16]:
    try:
        array: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read ({reason}); make it with the part latents") from None
    if array.ndim != 4 or (recipe.image_size is not None and array.shape[2] != array.shape[3]):
        size = "" if recipe.image_size is None else f" --size {recipe.image_size}"
        raise ValueError(f"{path}: shape {array.shape}; make it with the part latents{size}")
    return array


def _unet(
    arguments: argparse.Namespace, recipe: UNetRecipe, latents: tuple[int, ...], width: int
) -> InstanceUNet:
    torch.manual_seed(recipe.seed)
    if arguments.base is None:
        unet = shapes_unet(recipe, latents[1], latents[-1], width)
        if arguments.init is not None:
            load_start(unet, arguments.init, recipe.anew)
    else:
        unet = unet_from_base(arguments.base, recipe, width)
        if int(unet.config.in_channels) != latents[1]:
            raise ValueError(
                f"{arguments.latents}: {latents[1]} channels, the base takes {unet.config.in_channels}; "
                f"encode with {arguments.base / 'vae'}"
            )
        if recipe.trainable == "grounding":
            freeze_base(unet)
    if arguments.segment_backbone is not None:
        load_segment_backbone(unet, arguments.segment_backbone)
    return unet


def main(argv: list[str]) -> int:
    """Command line of the recipe; returns 0 if the last step was reached, else 1 (resumable)."""
    arguments = _parser().parse_args(argv)
    recipe = recipe_from_overrides(arguments.set, arguments.recipe)
    if arguments.base is not None and arguments.init is not None:
        raise ValueError("--init: leave --base out; those weights have their own")
    if recipe.anew and arguments.init is None:
        raise ValueError("anew: says what does not come from --init; give that, or leave anew out")
    if arguments.init is not None:
        recipe = replace(recipe, base_sha256=weights_sha256(arguments.init))
    if arguments.base is not None:
        check_noise_schedule(arguments.base, recipe)
        recipe = replace(recipe, base_sha256=weights_sha256(unet_folder(arguments.base)))
    elif recipe.trainable == "grounding":
        raise ValueError("--base: needed where only the grounding parts are trained (trainable)")
    folders: dict[str, Path] = {}
    for name in ("text_encoder", "tokenizer"):
        given = getattr(arguments, name)
        if given is None and arguments.base is None:
            raise ValueError(f"--{name.replace('_', '-')}: needed without --base")
        folders[name] = arguments.base / name if given is None else given
        if not folders[name].is_dir():
            raise ValueError(f"{folders[name]}: no such folder; give --{name.replace('_', '-')}")
    latents = _latents(arguments.latents, recipe)
    flipped = None if arguments.flipped_latents is None else _latents(arguments.flipped_latents, recipe)
    accelerator = Accelerator()
    texts = arguments.texts or arguments.output / "texts"
    if accelerator.is_main_process:
        cache = build_location_cache(arguments.data, recipe.image_size, recipe.min_box_area)
        embed_texts(Locations.load(cache), **folders, output=texts, captions=recipe.cache_captions)
    accelerator.wait_for_everyone()
    locations = Locations.load(build_location_cache(arguments.data, recipe.image_size, recipe.min_box_area))
    phrases = torch.from_numpy(np.load(texts / "phrases.npy", allow_pickle=False).astype(np.float32))
    captions: np.ndarray | LiveStates
    if recipe.cache_captions:
        captions = np.load(texts / "captions.npy", mmap_mode="r", allow_pickle=False)
    else:
        captions = LiveStates(locations.captions, **folders, device=accelerator.device)
    torch.set_flush_denormal(True)  # tiny values in float32 moments slow CPUs down
    unet = _unet(arguments, recipe, latents.shape, phrases.shape[-1])
    radius = recipe.local_mask_radius
    dataset = GroundedDataset(
        locations,
        latents,
        phrases,
        captions,
        max_instances=recipe.max_instances,
        num_mask_points=recipe.num_mask_points,
        segment_size=None if recipe.convnext_depths is None else recipe.segment_size,
        local_mask_radius=None if radius is None else {"point": radius[0], "scribble": radius[1]},
        rules=recipe.rules,
        flipped_latents=flipped,
    )
    trainer = Trainer(accelerator, recipe, dataset, unet, arguments.compile)
    done = run(
        trainer,
        arguments.output,
        LoopOptions(arguments.max_minutes, arguments.log_every, arguments.checkpoint_minutes),
    )
    return 0 if done >= recipe.steps else 1
