"""Trains variants of small weights, with one part changed each; all see the same samples.

Most start from the UNet of a pipeline and go on learning for a while. Those called ``from-start-…`` take only its text
encoder and autoencoder, and learn for as long as the shipped weights did: the part was never there.

``python -m reference_model.training variants --init PIPELINE --data DIR --latents FILE -o DIR``, or below ``torchrun``
as the part ``unet``. Every variant ends as a pipeline folder of its name. Calling the command again continues.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from reference_model.training.assemble import assemble
from reference_model.training.unet import main as train_unet

__all__ = ["VARIANTS", "main"]

logger = logging.getLogger(__name__)

_NEW_TOKENS = {"anew": ["position_net"]}

VARIANTS: dict[str, dict[str, Any]] = {
    "control": {},
    "no-scaleu": {"use_scaleu": False},
    "no-masks": {"masked_attention": "none"},
    "separate-tokens": _NEW_TOKENS,
    "joint-tokens": {**_NEW_TOKENS, "joint_tokens": True},
    "boxes": {
        "rules": {"all_formats": 0.0, "random_subset": 0.0, "keep_only": [1.0, 0.0, 0.0, 0.0]},
    },
    "from-start-no-scaleu": {"use_scaleu": False},
}
"""Recipe values by variant. ``control`` trains on without a change; ``separate-tokens`` is the control of
``joint-tokens``, whose UniFusion has to be learned from the start; ``boxes`` sees boxes alone. The control of what is
from the start are the shipped weights, whose recipe is its own."""

FROM_START = "from-start-"
SHORT = {"steps": 250, "warmup": 20, "cooldown": 180, "lr": 2e-3, "ema": 0.99, "batch_size": 48}
"""What variants of trained weights share: about an eighth of the samples of the weights that they start from."""
LONG = {"steps": 2100, "cooldown": 750, "batch_size": 48}
"""What variants from the start share: the values of the shipped weights."""


def main(argv: list[str]) -> int:
    """Command line; returns 0 once every variant is there. An interrupted call is continued by the same one."""
    parser = argparse.ArgumentParser(prog="python -m reference_model.training variants", description=__doc__)
    parser.add_argument("--init", type=Path, required=True, help="pipeline folder to start from")
    parser.add_argument("--data", type=Path, required=True, help="COCO-format folder")
    parser.add_argument("--latents", type=Path, required=True, help="latents.npy of the same folder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", choices=sorted(VARIANTS), metavar="NAME", help=f"of {', '.join(VARIANTS)}"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="for all variants")
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0)
    arguments = parser.parse_args(argv)
    start: Path = arguments.init
    index = start / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{index}: no such file; --init takes a pipeline folder")
    sampling = json.loads(index.read_text(encoding="utf-8")).get("sampling_defaults", {})
    for name, values in VARIANTS.items():
        output = arguments.output / name
        if (arguments.only and name not in arguments.only) or (output / "model_index.json").is_file():
            continue
        work = arguments.output / "training" / name
        anew = name.startswith(FROM_START)
        shared = LONG if anew else SHORT
        changes = [f"{key}={json.dumps(value)}" for key, value in {**shared, **values}.items()]
        options: dict[str, Path | float] = {
            **({} if anew else {"--init": start / "unet"}),
            "--text-encoder": start / "text_encoder",
            "--tokenizer": start / "tokenizer",
            "--data": arguments.data,
            "--latents": arguments.latents,
            "--texts": arguments.output / "training" / "texts",
            "--checkpoint-minutes": arguments.checkpoint_minutes,
            "-o": work,
        }
        command = [text for option, value in options.items() for text in (option, str(value))]
        command += [text for change in [*changes, *arguments.set] for text in ("--set", change)]
        logger.info("variant %s", name)
        train_unet(command)
        accelerator = Accelerator()
        if accelerator.is_main_process:
            assemble(
                start / "vae",
                start / "text_encoder",
                start / "tokenizer",
                work / "unet",
                output,
                sampling,
                base=start,
            )
            shutil.rmtree(work / "checkpoints")  # optimizer states, several times the weights
        accelerator.wait_for_everyone()
    return 0
