"""Puts the trained parts together as one pipeline folder, in half precision."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from reference_model.pipeline import InstanceDiffusionPipeline
from reference_model.training.latents import load_autoencoder
from reference_model.unet import InstanceUNet

__all__ = ["assemble", "main"]


def _recipe(folder: Path) -> dict[str, Any]:
    for candidate in (folder / "recipe.json", folder.parent / "recipe.json"):
        if candidate.is_file():
            content: dict[str, Any] = json.loads(candidate.read_text(encoding="utf-8"))
            return content
    raise ValueError(f"{folder}: no recipe.json in it or above it; give a folder that a recipe made")


def _scheduler(base: Path | None, recipe: dict[str, Any]) -> PNDMScheduler:
    """The noise schedule: that of the base, which the UNet was trained with too, or the recipe's."""
    if base is not None and (base / "scheduler").is_dir():
        return PNDMScheduler.from_pretrained(base, subfolder="scheduler", local_files_only=True)
    return PNDMScheduler(
        beta_schedule=recipe["beta_schedule"],
        beta_start=recipe.get("beta_start", 0.0001),
        beta_end=recipe.get("beta_end", 0.02),
        prediction_type=recipe["prediction_type"],
        skip_prk_steps=True,
    )


def assemble(
    vae: Path,
    text_encoder: Path,
    tokenizer: Path,
    unet: Path,
    output: Path,
    sampling_defaults: dict[str, Any],
    base: Path | None = None,
) -> Path:
    """Writes a pipeline folder as diffusers lays it out, weights in float16 safetensors.

    Args:
        vae: Folder of the autoencoder.
        text_encoder: Folder of the text encoder.
        tokenizer: Folder of the tokenizer.
        unet: Folder of the UNet; the noise schedule is read from the recipe beside it.
        output: Target folder; appears when it is complete and replaces an older one.
        sampling_defaults: Recommended sampling settings.
        base: Pipeline folder that the UNet was fine-tuned from; its parts need no recipe, and its noise
            schedule is kept.

    Returns:
        The target folder, with ``recipes.json``: how each part was trained.

    Raises:
        ValueError: If a part has no recipe or a setting is unknown.
    """
    trained = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet}
    recipes = {
        name: _recipe(path)
        for name, path in trained.items()
        if base is None or not path.resolve().is_relative_to(base.resolve())
    }
    pipeline = InstanceDiffusionPipeline(
        vae=load_autoencoder(vae),
        text_encoder=CLIPTextModel.from_pretrained(text_encoder, local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True),
        unet=InstanceUNet.from_pretrained(unet, local_files_only=True),
        scheduler=_scheduler(base, recipes["unet"]["recipe"] if "unet" in recipes else {}),
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
    parser.add_argument("--base", type=Path, help="pipeline folder that the UNet was fine-tuned from")
    for name in ("vae", "text-encoder", "tokenizer"):
        parser.add_argument(f"--{name}", type=Path, help=f"folder of the {name}; default: that of the base")
    parser.add_argument("--unet", type=Path, required=True, help="folder of the unet")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--sampling", type=json.loads, default={}, metavar="JSON", help="recommended settings"
    )
    arguments = parser.parse_args(argv)
    parts: dict[str, Path] = {}
    for name in ("vae", "text_encoder", "tokenizer"):
        given = getattr(arguments, name)
        if given is None and arguments.base is None:
            raise ValueError(f"--{name.replace('_', '-')}: needed without --base")
        parts[name] = arguments.base / name if given is None else given
    assemble(
        **parts,
        unet=arguments.unet,
        output=arguments.output,
        sampling_defaults=arguments.sampling,
        base=arguments.base,
    )
    return 0
