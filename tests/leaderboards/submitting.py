"""Results files of made-up runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def results(model: str = "mine", *, identity: str = "a", **changes: Any) -> dict[str, Any]:
    """A results.json that passes: 4 images, 10 objects, box_ap and fid."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "identity_sha256": identity * 64,
        "benchmark": "shapes-box",
        "benchmark_version": 1,
        "edition": "strict",
        "model": model,
        "evaluators": {"detector": {"name": "yolo", "kind": "k", "sha256": {"model": "b" * 64}}},
        "counts": {"images": 4, "images_missing": 0, "instances_requested": 10, "instances_ignored": 0},
        "metrics": {
            "box_ap": number(0.5, [0.4, 0.6]),
            "fid": {**number(20.0, [18.0, 22.0], 4), "unit": "distance", "higher_is_better": False},
        },
    }
    return {**content, **changes}


def number(value: float | None, ci95: list[float] | None = None, scored: int = 10) -> dict[str, Any]:
    """A fraction over all objects."""
    return {
        "value": value,
        "ci95": ci95,
        "n_scored": scored,
        "n_unscored": 0,
        "unit": "fraction",
        "higher_is_better": True,
        "reasons": {},
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Writes results into a new folder and returns the folder."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
