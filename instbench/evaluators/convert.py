"""Turns a ``.pt`` file of ultralytics into an evaluator folder of safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from instbench.errors import InputError
from instbench.evaluators.folders import CARD_NAME, DetectorCard, write_card
from instbench.evaluators.yolo import ARCHITECTURE_NAME, WEIGHTS_NAME
from instbench.evaluators.yolo_checkpoint import read_yolo_checkpoint

__all__ = ["convert_yolo"]

_EPS = 1e-3
"""What ultralytics sets for every batch normalisation that it builds."""


def convert_yolo(checkpoint: Path, output: Path, *, overwrite: bool = False) -> DetectorCard:
    """Writes ``evaluator.json``, ``model.yaml`` and ``model.safetensors``; nothing in the file is run.

    Weights stay in half precision where that loses nothing, as in the files of ultralytics.

    Args:
        checkpoint: A detection or segmentation checkpoint.
        output: The folder to write.
        overwrite: Replace an earlier conversion.

    Returns:
        The card that was written.

    Raises:
        InputError: The checkpoint cannot be read, the folder is in use, or the network has settings that its
            architecture does not say.
    """
    from safetensors.torch import save_file

    in_use = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if in_use and not (overwrite and (output / CARD_NAME).is_file()):
        raise InputError(f"{output}: not empty; choose another folder, or --overwrite an earlier conversion")
    found = read_yolo_checkpoint(checkpoint)
    odd = [
        name
        for name, module in found.model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and module.eps != _EPS
    ]
    if odd:
        raise InputError(
            f"{checkpoint}: {odd[0]} has an eps that no architecture file holds; use the .pt itself"
        )
    state = {name: tensor.contiguous() for name, tensor in found.model.state_dict().items()}
    floats = {name for name, tensor in state.items() if tensor.is_floating_point()}
    if all(torch.equal(state[name].half().float(), state[name]) for name in floats):
        state |= {name: state[name].half() for name in floats}
    output.mkdir(parents=True, exist_ok=True)
    (output / CARD_NAME).unlink(missing_ok=True)  # written last, so a folder that has one is complete
    save_file(state, output / WEIGHTS_NAME)
    (output / ARCHITECTURE_NAME).write_text(yaml.safe_dump(found.spec, sort_keys=False), encoding="utf-8")
    write_card(output, found.card)
    return found.card
