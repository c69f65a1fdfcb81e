"""``python -m reference_model.training PART``: trains one part of a small pipeline."""

from __future__ import annotations

import importlib
import logging
import sys

__all__ = ["PARTS", "main"]

logger = logging.getLogger("reference_model.training")

PARTS: dict[str, tuple[str, str, str]] = {
    "tokenizer": ("tokenizer", "main", "byte-level BPE tokenizer of the folder's words"),
    "text-encoder": ("text_encoder", "main", "CLIP text encoder that knows the folder's words"),
    "autoencoder": ("autoencoder", "main", "autoencoder of the folder's images"),
    "latents": ("latents", "main", "latents of the folder's images, cached once"),
    "unet": ("unet", "main", "grounded UNet"),
    "variants": ("variants", "main", "variants of a pipeline's UNet, for ablations"),
    "pipeline": ("assemble", "main", "one pipeline folder from the trained parts"),
}
"""Parts in the order of training: module, function, description."""


def main(argv: list[str] | None = None) -> int:
    """Dispatches to a recipe.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        Exit code: 0 done, 1 stopped early (resumable), 2 bad input, 130 interrupted (resumable).
    """
    arguments = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if not arguments or arguments[0] in {"-h", "--help"}:
        lines = [f"  {name:13s} {text}" for name, (_, _, text) in PARTS.items()]
        usage = "usage: python -m reference_model.training PART --help\n\nparts, in the order of training:\n"
        sys.stdout.write(usage + "\n".join(lines) + "\n")
        return 0 if arguments else 2
    if arguments[0] not in PARTS:
        logger.error("unknown part %r (parts: %s)", arguments[0], ", ".join(PARTS))
        return 2
    module, function, _ = PARTS[arguments[0]]
    try:
        recipe = getattr(importlib.import_module(f"reference_model.training.{module}"), function)
        return int(recipe(arguments[1:]))
    except ValueError as error:
        logger.error("%s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; run the same command again to go on")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
