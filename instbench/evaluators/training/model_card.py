"""Writes the README of an evaluator folder from its card, so that its figures cannot drift from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instbench.evaluators.folders import EvaluatorCard

__all__ = ["write_model_card"]

_ABOUT = {
    "ultralytics-segment": (
        "Object detector and segmenter: ultralytics YOLOv8-seg at one eighth of the full width. The architecture "
        "is ultralytics' and AGPL-3.0; so are these weights.",
        "AGPL-3.0",
    ),
    "open-clip": (
        "Image-text model for object crops: open_clip's CLIP with a small modified ResNet.",
        "Apache-2.0",
    ),
    "resnet-features": ("Feature extractor for FID: a small transformers ResNet.", "Apache-2.0"),
}


def write_model_card(folder: Path, card: EvaluatorCard) -> Path:
    """Writes ``README.md``: what the evaluator is, how it was trained, what was measured and how.

    Args:
        folder: The evaluator folder.
        card: Its card.

    Returns:
        The file.
    """
    about, license_name = _ABOUT.get(card.kind, (card.kind, "Apache-2.0"))
    lines = [f"# {folder.name}", "", about, "", f"License: {license_name}.", ""]
    if card.training:
        lines += ["## Training", ""]
        earlier = card.training.get("earlier")
        if earlier:
            lines += ["First:", "", *_run_lines(earlier), "", "Then, from those weights:", ""]
        lines += [
            *_run_lines(card.training),
            "",
            f"{card.training.get('parameters')} parameters, stored as float16.",
            "",
        ]
    if card.figures:
        lines += ["## Figures", ""]
        for data_name, figures in card.figures.items():
            lines += [
                f"{data_name}: `python -m instbench.evaluators.training measure FOLDER --data data/{data_name}`",
                "",
                "| figure | value |",
                "|---|---|",
                *(f"| {name} | {value:.4f} |" for name, value in figures.items()),
                "",
            ]
        lines += [
            "`_degraded`: the same scenes slightly blurred, noisy, off in tone or recompressed.",
            "",
        ]
    path = folder / "README.md"
    partial = folder / "README.md.partial"
    partial.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def _run_lines(training: Mapping[str, Any]) -> list[str]:
    settings = training.get("settings", {})
    data = " and ".join(
        f"the first {count} scenes of {name}"
        for name, count in zip(training.get("data", []), training.get("scenes", []), strict=False)
    )
    return [
        f"- Data: {data} (`instbench data prepare`).",
        f"- Command: `{training.get('command', '')}`",
        f"- {settings.get('steps')} steps of {settings.get('batch_size')}, AdamW at {settings.get('learning_rate')} "
        f"with warm-up and cosine decay, averaged weights, seed {settings.get('seed')}; "
        f"{training.get('minutes')} minutes of wall clock, one thread of a busy CPU.",
    ]
