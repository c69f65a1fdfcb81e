"""Puts the trained parts together as one pipeline folder, in half precision."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import PNDMScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from reference_model.pipeline import InstanceDiffusionPipeline
from reference_model.unet import InstanceUNet

__all__ = ["assemble", "main"]


def _recipe(folder: Path) -> dict[str, Any]:
    for candidate in (folder / "recipe.json", folder.parent / "recipe.json"):
        if candidate.is_file():
            content: dict[str, Any] = json.loads(candidate.read_text(encoding="utf-8"))
            return content
    raise ValueError(f"{folder}: no recipe.json in it or above it; give a folder that a recipe made")


def assemble(
    vae: Path,
    text_encoder: Path,
    tokenizer: Path,
    unet: Path,
    output: Path,
    sampling_defaults: dict[str, Any],
) -> Path:
    """Writes a pipeline folder as diffusers lays it out, weights in float16 safetensors.

    Args:
        vae: Folder of the autoencoder.
        text_encoder: Folder of the text encoder.
        tokenizer: Folder of the tokenizer.
        unet: Folder of the UNet; the noise schedule is read from the recipe beside it.
        output: Target folder; appears when it is complete and replaces an older one.
        sampling_defaults: Recommended sampling settings.

    Returns:
        The target folder, with ``recipes.json``: how each part was trained.

    Raises:
        ValueError: If a part has no recipe or a setting is unknown.
    """
    recipes = {name: _recipe(path) for name, path in (("vae", vae), ("text_encoder", text_encoder))}
    recipes |= {name: _recipe(path) for name, path in (("tokenizer", tokenizer), ("unet", unet))}
    recipe = recipes["unet"]["recipe"]
    # The autoencoder's class is part of its config; diffusers has several.
    vae_class = getattr(
        diffusers, json.loads((vae / "config.json").read_text(encoding="utf-8"))["_class_name"]
    )
    pipeline = InstanceDiffusionPipeline(
        vae=vae_class.from_pretrained(vae, local_files_only=True),
        text_encoder=CLIPTextModel.from_pretrained(text_encoder, local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True),
        unet=InstanceUNet.from_pretrained(unet, local_files_only=True),
        scheduler=PNDMScheduler(
            beta_schedule=recipe["beta_schedule"],
            prediction_type=recipe["prediction_type"],
            skip_prk_steps=True,
        ),
        sampling_defaults=sampling_defaults,
    ).to(torch.float16)
    partial = output.with_name(output.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    (partial / "recipes.json").write_text(json.dumps(recipes, indent=2) + "\n", encoding="utf-8")
    card = output / "README.md"
    if card.is_file():
        shutil.copy(card, partial / "README.md")
    shutil.rmtree(output, ignore_errors=True)
    partial.replace(output)
    return output


def main(argv: list[str]) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.training pipeline", description=__doc__)
    for name in ("vae", "text-encoder", "tokenizer", "unet"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"folder of the {name}")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--sampling", type=json.loads, default={}, metavar="JSON", help="recommended settings"
    )
    arguments = parser.parse_args(argv)
    assemble(
        arguments.vae,
        arguments.text_encoder,
        arguments.tokenizer,
        arguments.unet,
        arguments.output,
        arguments.sampling,
    )
    return 0
