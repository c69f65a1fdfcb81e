"""``python -m metrics.benchmarking``: how fast the metrics are against their references, at which difference.

Both sides get the same data, made from a seed, and run in turns in one process. A reference is the library that
defines the number (pycocotools, torchmetrics), or, for points in mask, what the published script does: decode
all masks and compare them pair by pair.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "compare_all", "main", "masks_of_images", "naive_points_in_mask", "scattered_boxes"]

HEIGHT, WIDTH = 480, 640
INSTANCES = 7
CATEGORIES = 80
Pair = tuple[dict[str, Any], list[dict[str, Any]]]


@dataclass(frozen=True)
class Comparison:
    """One metric against its reference.

    Attributes:
        name: What was computed, and on what.
        reference_seconds: Processor time of the reference.
        seconds: Processor time of ours, the shortest of the repeats.
        difference: Largest absolute difference of the numbers.
    """

    name: str
    reference_seconds: float
    seconds: float
    difference: float

    def __str__(self) -> str:
        ratio = self.reference_seconds / self.seconds
        return (
            f"{self.name:44s}{self.reference_seconds:10.2f}{self.seconds:10.3f}{ratio:9.1f}x"
            f"{self.difference:12.1e}"
        )


def _truth(images: int, rng: np.random.Generator) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Images of 7 instances each; boxes float64 [images, 7, 4] as x, y, width, height in pixels."""
    sides = np.exp(rng.uniform(np.log(8), np.log(300), (images, INSTANCES, 2)))
    corners = rng.random((images, INSTANCES, 2)) * (np.array([WIDTH, HEIGHT]) - sides)
    boxes = np.concatenate([corners, sides], axis=-1).round(2)
    categories = rng.integers(1, CATEGORIES + 1, (images, INSTANCES))
    crowds = rng.random((images, INSTANCES)) < 0.02
    annotations = [
        {
            "id": 1 + image * INSTANCES + number,
            "image_id": image + 1,
            "category_id": int(categories[image, number]),
            "bbox": boxes[image, number].tolist(),
            "area": float(0.7 * boxes[image, number, 2] * boxes[image, number, 3]),
            "iscrowd": int(crowds[image, number]),
        }
        for image in range(images)
        for number in range(INSTANCES)
    ]
    sizes = [{"id": image + 1, "height": HEIGHT, "width": WIDTH} for image in range(images)]
    names = [{"id": number + 1, "name": f"category {number + 1}"} for number in range(CATEGORIES)]
    return {"images": sizes, "annotations": annotations, "categories": names}, boxes


def scattered_boxes(images: int, per_image: int, seed: int = 0) -> Pair:
    """Ground truth, and boxes scattered around it, 70 % of the right category, with tied scores."""
    rng = np.random.default_rng(seed)
    truth, boxes = _truth(images, rng)
    right = np.array([one["category_id"] for one in truth["annotations"]]).reshape(images, INSTANCES)
    source = rng.integers(0, INSTANCES, (images, per_image))
    near = np.take_along_axis(boxes, source[..., None], axis=1)
    noise = rng.normal(0, 0.15, (images, per_image, 4))
    moved = np.concatenate(
        [near[..., :2] + noise[..., :2] * near[..., 2:], near[..., 2:] * np.exp(noise[..., 2:])], axis=-1
    ).round(2)
    wrong = rng.random((images, per_image)) >= 0.7
    category = np.where(
        wrong,
        rng.integers(1, CATEGORIES + 1, (images, per_image)),
        np.take_along_axis(right, source, axis=1),
    )
    scores = rng.random((images, per_image)).round(3)
    results = [
        {
            "image_id": image + 1,
            "category_id": int(category[image, number]),
            "bbox": moved[image, number].tolist(),
            "score": float(scores[image, number]),
        }
        for image in range(images)
        for number in range(per_image)
    ]
    return truth, results


def masks_of_images(images: int, per_image: int, seed: int = 0) -> Pair:
    """The same with ellipses as masks, as compressed run lengths."""
    from pycocotools import mask as coco_mask

    truth, results = scattered_boxes(images, per_image, seed)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]

    def ellipse(box: Sequence[float]) -> dict[str, Any]:
        x, y, w, h = box
        inside = ((xs + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((ys + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1
        packed = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        return {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}

    for entry in [*truth["annotations"], *results]:
        entry["segmentation"] = ellipse(entry["bbox"])
    return truth, results


def naive_points_in_mask(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> float:
    """Point hit rate of the paper edition by decoded masks, pair by pair; a readable reference."""
    from pycocotools import mask as coco_mask

    per_image = []
    for image in truth["images"]:
        asked = [
            coco_mask.decode(one["segmentation"])
            for one in truth["annotations"]
            if one["image_id"] == image["id"]
        ]
        found = [coco_mask.decode(one["segmentation"]) for one in results if one["image_id"] == image["id"]]
        hits = []
        for mask in asked:
            best, chosen = -1.0, -1
            for index, other in enumerate(found):
                union = np.logical_or(mask, other).sum()
                iou = np.logical_and(mask, other).sum() / union if union else -1.0
                if iou > best:
                    best, chosen = float(iou), index
            if chosen < 0:
                continue
            rows, columns = np.nonzero(mask)
            y, x = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
            hits.append(float(found.pop(chosen)[y, x]))
        if hits:
            per_image.append(np.mean(hits))
    return float(np.mean(per_image))


def _timed(action: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    seconds = []
    result: Any = None
    for _ in range(repeats):
        started = time.process_time()
        result = action()
        seconds.append(time.process_time() - started)
    return result, min(seconds)


def _coco_reference(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> NDArray[np.float64]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats, dtype=np.float64)


def _average_precision(name: str, pair: Pair, kind: Any, repeats: int) -> Comparison:
    from metrics import coco_average_precision

    # pycocotools changes what it is given.
    truth, results = copy.deepcopy(pair[0]), copy.deepcopy(pair[1])
    expected, slow = _timed(lambda: _coco_reference(truth, results, kind))
    ours, quick = _timed(lambda: coco_average_precision(*pair, kind), repeats)
    return Comparison(name, slow, quick, float(np.abs(expected - list(ours.values())).max()))


def _points_in_mask(images: int, repeats: int) -> Comparison:
    from metrics import points_in_mask

    pair = masks_of_images(images, 100)
    expected, slow = _timed(lambda: naive_points_in_mask(*pair))
    ours, quick = _timed(lambda: points_in_mask(*pair, edition="paper"), repeats)
    difference = abs(expected - (ours.value if ours.value is not None else float("nan")))
    return Comparison(f"points in mask, {images} images, 100 masks each", slow, quick, difference)


def _frechet(images: int, width: int, repeats: int) -> Comparison:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    from metrics import frechet_from_features

    rng = np.random.default_rng(0)
    first, second = rng.random((images, width)), rng.random((images, width)) * 1.05

    class Given(torch.nn.Module):
        num_features = width

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    def reference() -> float:
        metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
        metric.update(torch.from_numpy(first), real=False)
        metric.update(torch.from_numpy(second), real=True)
        return float(metric.compute())

    expected, slow = _timed(reference)
    ours, quick = _timed(lambda: frechet_from_features(first, second), repeats)
    value = float("nan") if ours.value is None else ours.value
    return Comparison(f"FID, {images} images, {width} features", slow, quick, abs(expected - value))


def compare_all(
    images: int, per_image: int, mask_images: int, repeats: int = 3, width: int = 512
) -> list[Comparison]:
    """Runs all comparisons.

    Args:
        images: Images of the box set.
        per_image: Detections per image of the box set.
        mask_images: Images of the mask sets, with 100 masks each.
        repeats: Runs of ours; the shortest counts.
        width: Length of the features for FID.
    """
    boxes = f"box AP, {images} images, {images * per_image} boxes"
    masks = f"mask AP, {mask_images} images, {mask_images * 100} masks"
    return [
        _average_precision(boxes, scattered_boxes(images, per_image), "bbox", repeats),
        _average_precision(masks, masks_of_images(mask_images, 100), "segm", repeats),
        _points_in_mask(mask_images, repeats),
        _frechet(min(images, 2000), width, repeats),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report to the standard output; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m metrics.benchmarking", description=__doc__)
    parser.add_argument("--images", type=int, default=5000, help="images of the box set")
    parser.add_argument("--per-image", type=int, default=54, help="detections per image of the box set")
    parser.add_argument("--mask-images", type=int, default=40, help="images of the mask sets")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours; the shortest counts")
    options = parser.parse_args(argv)
    if min(options.images, options.per_image, options.mask_images, options.repeats) < 1:
        parser.error("all numbers must be at least 1")
    rows = compare_all(options.images, options.per_image, options.mask_images, options.repeats)
    header = f"{'':44s}{'reference':>10s}{'ours':>10s}{'ratio':>10s}{'difference':>12s}   (CPU seconds)\n"
    sys.stdout.write(header + "\n".join(map(str, rows)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
