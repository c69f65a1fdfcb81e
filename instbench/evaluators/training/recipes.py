"""The recipes with their default settings, and how a trained network becomes an evaluator folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from instbench.errors import InputError
from instbench.evaluators.folders import DetectorCard, EvaluatorCard, ImageTextCard, read_card, write_card
from instbench.evaluators.training.loop import LoopSettings, TrainedModel
from instbench.evaluators.training.model_card import write_model_card
from instbench.evaluators.training.scenes import SceneSet, concatenate, load_scenes

__all__ = ["RECIPES", "Recipe", "Task", "train"]

logger = logging.getLogger(__name__)

Task = Literal["detector", "image-text", "features"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Default settings of a task: the loop, and how many scenes of each data folder are used."""

    settings: LoopSettings
    limits: tuple[int, ...]


RECIPES: dict[str, Recipe] = {
    "detector": Recipe(LoopSettings(steps=1000, batch_size=64, learning_rate=3e-3), (6000, 3000)),
    "image-text": Recipe(
        LoopSettings(steps=1000, batch_size=128, learning_rate=2e-3, weight_decay=1e-2, clip=1.0),
        (6000, 3000),
    ),
    "features": Recipe(LoopSettings(steps=1200, batch_size=64, learning_rate=3e-3, clip=1.0), (9000, 3000)),
}


def train(
    task: Task,
    data: Sequence[Path],
    limits: Sequence[int] | None,
    out: Path,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    tokenizer: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Runs a recipe and writes the evaluator folder; the same call continues an interrupted run.

    Args:
        task: What to train.
        data: COCO-format folders of scenes of one size.
        limits: Scenes to take of each folder; the recipe's numbers by default.
        out: Folder of the checkpoint and the log; the evaluator goes to ``out/evaluator``.
        steps: Optimizer steps; the recipe's by default.
        batch_size: Items per step; the recipe's by default.
        learning_rate: Peak rate; the recipe's by default.
        seed: Seed of everything random.
        tokenizer: Folder of a ``CLIPTokenizer`` (image-text only).
        start: Evaluator folder whose weights training starts from (detector only).

    Returns:
        The evaluator folder.

    Raises:
        InputError: Data or options are wrong.
    """
    recipe = RECIPES[task]
    taken = tuple(limits) if limits else (*recipe.limits, *[recipe.limits[-1]] * len(data))[: len(data)]
    if len(taken) != len(data):
        raise InputError(f"--limits: {len(taken)} numbers for {len(data)} folders; give one for each")
    if task == "image-text" and (tokenizer is None or not tokenizer.is_dir()):
        raise InputError(f"--tokenizer {tokenizer}: no such folder; image-text needs a CLIP tokenizer folder")
    scenes = concatenate([load_scenes(folder, limit) for folder, limit in zip(data, taken, strict=True)])
    settings = replace(
        recipe.settings,
        steps=steps or recipe.settings.steps,
        batch_size=batch_size or recipe.settings.batch_size,
        learning_rate=learning_rate or recipe.settings.learning_rate,
        seed=seed,
    )
    if start is not None and task != "detector":
        raise InputError(f"--start {start}: only the detector can start from other weights; leave it out")
    folder = out / "evaluator"
    folder.mkdir(parents=True, exist_ok=True)
    provenance: dict[str, Any] = {
        "task": task,
        "data": [path.name for path in data],
        "scenes": list(taken),
        "settings": asdict(settings),
        "command": _command(task, data, taken, settings, out),
    }
    if task == "detector":
        if start is not None:
            provenance["earlier"] = read_card(start, DetectorCard).training
            provenance["command"] += f" --start training/{start.parent.name}/{start.name}"
        _detector(scenes, settings, out, folder, provenance, start)
    elif task == "image-text":
        _image_text(scenes, settings, out, folder, provenance, cast(Path, tokenizer))
    else:
        _features(scenes, settings, out, folder, provenance)
    return folder


def _command(
    task: Task, data: Sequence[Path], limits: Sequence[int], settings: LoopSettings, out: Path
) -> str:
    folders = " ".join(f"data/{path.name}" for path in data)
    tokenizer = " --tokenizer training/tokenizer" if task == "image-text" else ""
    return (
        f"python -m instbench.evaluators.training {task} --data {folders} "
        f"--limits {' '.join(map(str, limits))} --steps {settings.steps} "
        f"--learning-rate {settings.learning_rate} --seed {settings.seed}{tokenizer} -o training/{out.name}"
    )


def _detector(
    scenes: SceneSet,
    settings: LoopSettings,
    out: Path,
    folder: Path,
    provenance: dict[str, Any],
    start: Path | None,
) -> None:
    from instbench.evaluators.training.detector import train_detector

    trained, spec = train_detector(scenes, settings, out, start)
    header = "# YOLOv8-seg (ultralytics, AGPL-3.0), narrowed; made by instbench.evaluators.training.\n"
    (folder / "model.yaml").write_text(
        header + yaml.safe_dump(spec, sort_keys=False, default_flow_style=None), encoding="utf-8"
    )
    _save_half(trained.model, folder / "model.safetensors")
    card = DetectorCard(categories=scenes.categories, image_size=int(scenes.images.shape[1]))
    _write(folder, card, trained, provenance)


def _image_text(
    scenes: SceneSet,
    settings: LoopSettings,
    out: Path,
    folder: Path,
    provenance: dict[str, Any],
    tokenizer: Path,
) -> None:
    from instbench.evaluators.training.image_text import PREPROCESS, train_image_text

    # The evaluator keeps a tokenizer of its own, so that it stands alone.
    own = folder / "tokenizer"
    own.mkdir(exist_ok=True)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
    ):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, own / name)
    trained, config = train_image_text(scenes, settings, out, folder)
    _save_half(trained.model, folder / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _write(folder, ImageTextCard(), trained, provenance)


def _features(
    scenes: SceneSet, settings: LoopSettings, out: Path, folder: Path, provenance: dict[str, Any]
) -> None:
    from instbench.evaluators.training.features import MODEL_CONFIG, train_features

    trained, card = train_features(scenes, settings, out)
    _save_half(cast(nn.Module, trained.model.backbone), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(MODEL_CONFIG, indent=2) + "\n", encoding="utf-8")
    _write(folder, card, trained, provenance)


def _save_half(model: nn.Module, path: Path) -> None:
    """Saves weights as float16; integer buffers stay as they are."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for name, value in model.state_dict().items()
    }
    if not all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point()):
        raise FloatingPointError(f"{path}: a weight does not fit float16; train again with a lower rate")
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial)
    partial.chmod(0o644)
    partial.replace(path)


def _write(folder: Path, card: EvaluatorCard, trained: TrainedModel, provenance: dict[str, Any]) -> None:
    training = {
        **provenance,
        "minutes": round(trained.seconds / 60, 1),
        "losses": {name: round(value, 4) for name, value in trained.losses.items()},
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
    }
    complete = card.model_copy(update={"training": training})
    write_card(folder, complete)
    write_model_card(folder, complete)
