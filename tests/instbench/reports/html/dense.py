"""A run folder as large as COCO's validation set, made without a network, to measure reports on.

``python -m tests.instbench.reports.html.dense FOLDER`` writes 5,000 images of 512x512 pixels with 1 to 14 objects (7.4
on average) of 80 categories, and 50 detections with masks of each image, about 10 of them above a score of 0.3.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from instbench.layouts.rle import encode
from instbench.layouts.serialization import write_jsonl
from instbench.layouts.types import Instance, Layout, MaskRLE
from instbench.runs.records import FailuresRecord, MetricRecord, ResultsRecord, RunRecord, SliceRecord
from instbench.runs.store import RunFolder
from instbench.runs.tables import write_table

SIDE, CATEGORIES, DETECTIONS = 512, 80, 50
KINDS = ("correct", "missing", "misplaced", "wrong class", "duplicated", "merged")
_SHARES = (0.55, 0.2, 0.1, 0.08, 0.05, 0.02)
_WORDS = ["a man", "two dogs", "the kite", "a bench", "old bus", "holds", "near", "by a river"]
_SHAPES, _PICTURES = 600, 40


class _Shape(NamedTuple):
    box: tuple[float, float, float, float]
    mask: MaskRLE


def make_dense_run(
    root: Path, count: int = 5000, *, conditions: tuple[str, ...] = ("box", "mask"), model: str = "dense"
) -> Path:
    """Writes a scored run.

    Args:
        root: The run folder.
        count: Images.
        conditions: What the generator was shown; masks make the page larger.
        model: Name of the generator; also chooses the random numbers of what is found, not of what is asked.

    Returns:
        `root`.
    """
    folder = RunFolder(root)
    folder.prepare()
    random, outcome = np.random.default_rng(0), np.random.default_rng(sum(model.encode()))
    shapes = [_shape(random) for _ in range(_SHAPES)]
    layouts, rows, seen = [], [], []
    for index in range(count):
        chosen = random.integers(_SHAPES, size=min(14, 1 + random.poisson(6.4)))
        layout = _layout(index, [shapes[one] for one in chosen], random)
        layouts.append(layout)
        found, more = _found(layout, chosen, shapes, outcome)
        rows += more
        seen.append(
            {"image_key": layout.image_key, "image_sha256": "0" * 64, "height": SIDE, "width": SIDE, **found}
        )
        path = folder.images / f"{layout.image_key}.png"
        if index < _PICTURES:
            path.write_bytes(_picture(random))
        else:  # copies would take gigabytes
            os.link(folder.images / f"{layouts[index % _PICTURES].image_key}.png", path)
    write_jsonl(layouts, folder.layouts_jsonl)
    log = [{"image_key": one.image_key, "seed": 2**62 + at, "seconds": 5.2} for at, one in enumerate(layouts)]
    folder.images_jsonl.write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    write_table(folder.observations / "detections.parquet", pa.Table.from_pylist(seen))
    write_table(folder.instances_parquet, pa.Table.from_pylist(rows))
    _write_records(folder, layouts, rows, conditions, model)
    return root


def _shape(random: np.random.Generator) -> _Shape:
    """A blob with a jagged outline."""
    centre, radius = random.uniform(60, SIDE - 60, 2), SIDE * np.exp(random.uniform(-3.6, -1.4))
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    lengths = radius * random.uniform(0.6, 1.0, 40)
    points = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]
    inside = np.zeros((SIDE, SIDE), dtype=np.uint8)
    cv2.fillPoly(inside, [np.rint(points).astype(np.int32)], 1)
    ys, xs = np.nonzero(inside)
    x0, y0, x1, y1 = (float(one) for one in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return _Shape((x0 / SIDE, y0 / SIDE, x1 / SIDE, y1 / SIDE), encode(inside))


def _picture(random: np.random.Generator) -> bytes:
    """Colours that vary over many distances, as in photographs."""
    total = np.zeros((SIDE, SIDE, 3))
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = random.normal(size=(cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / cells**0.6
    image = Image.fromarray(np.clip(128 + 70 * total, 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _layout(index: int, shapes: list[_Shape], random: np.random.Generator) -> Layout:
    instances = []
    for position, shape in enumerate(shapes):
        category = int(random.integers(CATEGORIES))
        x0, y0, x1, y1 = shape.box
        instances.append(
            Instance(
                phrase=f"category {category}",
                category=f"category {category}",
                category_id=category,
                annotation_id=100 * index + position,
                box_xyxy=shape.box,
                mask=shape.mask,
                point_xy=((x0 + x1) / 2, (y0 + y1) / 2),
                scribble_xy=None,
            )
        )
    caption = " ".join(random.choice(_WORDS, 6))
    return Layout(f"{index:012d}", "synthetic", index, caption, SIDE, SIDE, tuple(instances))


def _found(
    layout: Layout, chosen: np.ndarray, shapes: list[_Shape], random: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kinds = random.choice(KINDS, size=len(chosen), p=_SHARES)
    scores = np.sort(random.uniform(0.3, 0.99, len(chosen)).astype(np.float32))
    picks, names, values, rows = [], [], [], []
    crowd = sum(layout.image_key.encode())
    for one, shape, kind, score in zip(layout.instances, chosen, kinds, scores, strict=True):
        there = kind != "missing"
        if there:
            picks.append(int(shape))
            names.append(one.category)
            values.append(float(score))
        overlap = {"correct": 0.86, "missing": 0.0}.get(kind, 0.3) * random.uniform(0.8, 1.1)
        rows.append(
            {
                "image_key": layout.image_key,
                "image_id": layout.image_id,
                "annotation_id": one.annotation_id,
                "category": one.category,
                "phrase": one.phrase,
                "found": there,
                "score": float(score) if there else None,
                "iou_box": overlap,
                "iou_mask": overlap * 0.95,
                "failure": str(kind),
            }
        )
    rest = DETECTIONS - len(picks)
    picks += random.integers(_SHAPES, size=rest).tolist()
    names += [f"category {(crowd + one) % CATEGORIES}" for one in range(rest)]
    values += (0.4 * random.uniform(0.03, 1.0, rest) ** 2).astype(np.float32).tolist()
    found = {
        "boxes_xyxy": [[SIDE * end for end in shapes[one].box] for one in picks],
        "scores": values,
        "categories": names,
        "masks": [shapes[one].mask.counts for one in picks],
    }
    return found, rows


def _write_records(
    folder: RunFolder,
    layouts: list[Layout],
    rows: list[dict[str, Any]],
    conditions: tuple[str, ...],
    model: str,
) -> None:
    identity = {
        "benchmark": "synthetic-dense",
        "benchmark_version": 1,
        "edition": "strict",
        "layouts_sha256": "ab" * 32,
        "layouts_count": len(layouts),
        "conditions": list(conditions),
        "canvas_size": SIDE,
        "seed": 0,
        "generator": {"kind": model, "sha256": {"model.safetensors": "cd" * 32}},
    }
    digest = f"{sum(model.encode()):064x}"
    benchmark = {"name": "synthetic-dense", "description": "Not measured", "conditions": list(conditions)}
    asked = {"limit": len(layouts), "seed": 0}
    run = {"identity": identity, "identity_sha256": digest, "status": "success", "model": model}
    folder.write_run(RunRecord(**run, benchmark=benchmark, settings_asked=asked))
    mean = float(np.mean([row["iou_box"] for row in rows]))
    by_category: dict[str, list[float]] = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row["iou_box"])
    bins = {
        name: SliceRecord(value=float(np.mean(values)), ci95=(0.5, 0.8), n_scored=len(values))
        for name, values in sorted(by_category.items())
    }
    ci95 = (max(mean - 0.01, 0.0), min(mean + 0.01, 1.0))
    folder.write_results(
        ResultsRecord(
            identity_sha256=digest,
            benchmark="synthetic-dense",
            benchmark_version=1,
            edition="strict",
            model=model,
            metrics={"box_iou": MetricRecord(value=mean, ci95=ci95, n_scored=len(rows))},
            slices={name: {"category": bins} for name in ("box_iou", "found_rate", "mask_iou")},
            failures=FailuresRecord(
                counts={kind: sum(row["failure"] == kind for row in rows) for kind in KINDS},
                ap50=mean,
                n_extra=1,
            ),
            counts={"images": len(layouts)},
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--boxes", action="store_true", help="no masks in the page")
    options = parser.parse_args()
    make_dense_run(options.folder, options.count, conditions=("box",) if options.boxes else ("box", "mask"))
