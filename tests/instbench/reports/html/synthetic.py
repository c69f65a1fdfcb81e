"""Run folders made without a network: any number of images, plain or hostile texts, wholly known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from instbench.layouts.rle import encode
from instbench.layouts.serialization import write_jsonl
from instbench.layouts.types import Instance, Layout
from instbench.runs.records import FailuresRecord, MetricRecord, ResultsRecord, RunRecord, SliceRecord
from instbench.runs.store import RunFolder
from instbench.runs.tables import write_table

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "long " * 2000,
    "../../etc/passwd",
    "\ud800 half of a pair \u2028 and a line separator",
)
KINDS = ("correct", "missing", "misplaced")


def make_run(
    root: Path,
    count: int = 6,
    *,
    size: int = 64,
    model: str = "synthetic",
    hostile: bool = False,
    shift: float = 0.0,
    noise: bool = False,
    conditions: tuple[str, ...] = ("box", "mask"),
    identity: dict[str, Any] | None = None,
) -> Path:
    """Writes a scored run of `count` images; image i has 1 + i % 3 objects, the first of kind ``KINDS[i % 3]``.

    Args:
        root: The run folder.
        count: Images.
        size: Canvas in pixels.
        model: Name of the generator.
        hostile: Texts that try to break the page.
        shift: Taken off every overlap.
        noise: Pictures that do not compress.
        conditions: What the generator was shown.
        identity: Fields of the identity to replace.

    Returns:
        `root`.
    """
    folder = RunFolder(root)
    folder.prepare()
    random = np.random.default_rng(0)
    layouts = [_layout(index, hostile=hostile) for index in range(count)]
    rows, seen = [], []
    for index, layout in enumerate(layouts):
        pixels = random.integers(0, 255, (size, size, 3), dtype=np.uint8) if noise else None
        image = Image.new("RGB", (size, size), (90, 110, 130)) if pixels is None else Image.fromarray(pixels)
        pen = ImageDraw.Draw(image)
        boxes, scores, names, masks = [], [], [], []
        for position, one in enumerate(layout.instances):
            assert one.box_xyxy is not None
            box = [value * size for value in one.box_xyxy]
            pen.rectangle(box, fill=(200, 60 + 40 * position, 60))
            kind = KINDS[index % 3] if position == 0 else "correct"
            score = round(0.9 - 0.1 * position, 2)
            if kind != "missing":
                boxes.append(box)
                scores.append(score)
                names.append(_safe(one.category))
                inside = np.zeros((size, size), dtype=bool)
                inside[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
                masks.append(encode(inside).counts)
            overlap = {"correct": 0.9, "missing": 0.0, "misplaced": 0.3}[kind]
            rows.append(_row(layout, one, kind, score, max(overlap - shift * (kind == "correct"), 0.0)))
        seen.append(
            {
                "image_key": layout.image_key,
                "image_sha256": "0" * 64,
                "height": size,
                "width": size,
                "boxes_xyxy": boxes,
                "scores": np.array(scores, dtype=np.float32).tolist(),
                "categories": names,
                "masks": masks,
            }
        )
        image.save(folder.images / f"{layout.image_key}.png", compress_level=1)
    write_jsonl(layouts, folder.layouts_jsonl)
    log = [{"image_key": one.image_key, "seed": 2**62 + at, "seconds": 0.5} for at, one in enumerate(layouts)]
    folder.images_jsonl.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    write_table(folder.observations / "detections.parquet", pa.Table.from_pylist(seen))
    write_table(folder.instances_parquet, pa.Table.from_pylist(rows))
    _write_records(folder, layouts, rows, model, size, conditions, identity or {})
    return root


def _layout(index: int, *, hostile: bool) -> Layout:
    text = HOSTILE[index % len(HOSTILE)] if hostile else f"caption number {index}"
    instances = []
    for position in range(1 + index % 3):
        low = 0.1 + 0.25 * position
        box = (low, 0.2, low + 0.2, 0.6)
        inside = np.zeros((32, 32), dtype=bool)
        inside[6:19, int(32 * box[0]) : int(32 * box[2])] = True
        instances.append(
            Instance(
                phrase=text if hostile else f"phrase {position}",
                category=(text if hostile else ("cat", "dog", "owl")[position])[:200],
                category_id=position,
                annotation_id=10 * index + position,
                box_xyxy=box,
                mask=encode(inside),
                point_xy=(low + 0.1, 0.4),
                scribble_xy=((low, 0.3), (low + 0.1, 0.4)),
            )
        )
    return Layout(f"{index:012d}", "synthetic", index, text, 32, 32, tuple(instances))


def _row(layout: Layout, one: Instance, kind: str, score: float, overlap: float) -> dict[str, Any]:
    return {
        "image_key": layout.image_key,
        "image_id": layout.image_id,
        "annotation_id": one.annotation_id,
        "category": _safe(one.category),
        "phrase": _safe(one.phrase),
        "found": kind != "missing",
        "score": None if kind == "missing" else float(np.float32(score)),
        "iou_box": overlap,
        "failure": kind,
    }


def _safe(text: str) -> str:
    return text.encode(errors="replace").decode()


def _write_records(
    folder: RunFolder,
    layouts: list[Layout],
    rows: list[dict[str, Any]],
    model: str,
    size: int,
    conditions: tuple[str, ...],
    replaced: dict[str, Any],
) -> None:
    identity = {
        "benchmark": "synthetic-box",
        "benchmark_version": 1,
        "edition": "strict",
        "layouts_sha256": "ab" * 32,
        "layouts_count": len(layouts),
        "conditions": list(conditions),
        "canvas_size": size,
        "seed": 0,
        "generator": {"kind": model, "sha256": {"model.safetensors": "cd" * 32}},
        **replaced,
    }
    digest = f"{abs(hash(model)):064x}"[:64]
    benchmark = {"name": "synthetic-box", "description": "A test", "conditions": list(conditions)}
    folder.write_run(
        RunRecord(
            identity=identity,
            identity_sha256=digest,
            status="success",
            model=model,
            benchmark=benchmark,
            settings_asked={"limit": len(layouts), "seed": 0},
        )
    )
    mean = float(np.mean([row["iou_box"] for row in rows]))
    counts = {kind: sum(row["failure"] == kind for row in rows) for kind in KINDS}
    interval = (max(mean - 0.1, 0.0), min(mean + 0.05, 1.0))
    folder.write_results(
        ResultsRecord(
            identity_sha256=digest,
            benchmark="synthetic-box",
            benchmark_version=1,
            edition="strict",
            model=model,
            metrics={
                "box_iou": MetricRecord(
                    value=mean,
                    ci95=interval,
                    n_scored=len(rows),
                    n_unscored=2,
                    reasons={"unknown <b>owl</b>": 2},
                ),
                "fid": MetricRecord(value=None, n_scored=0, unit="distance", higher_is_better=False),
            },
            slices={"box_iou": {"size": {"large": SliceRecord(value=mean, n_scored=len(rows))}}},
            failures=FailuresRecord(counts=counts, ap50=mean, ap50_gains={"missing": 0.125}, n_extra=1),
            counts={"images": len(layouts)},
        )
    )
