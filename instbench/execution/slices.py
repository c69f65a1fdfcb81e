"""Parts of the requested instances: which category, how large, how many in the image, how crowded, where.

Bins are fixed, so that runs can be compared bin by bin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench.layouts.geometry import boxes_xyxy_to_pixels, boxes_xyxy_to_xywh
from instbench.layouts.types import Layout
from instbench.runs.ordering import SLICES, bin_order
from instbench.runs.records import SliceRecord
from instbench.statistics.intervals import interval
from instbench.statistics.resampling import Resamples
from instbench.statistics.samples import RatioSamples
from metrics.functional.regions import pairwise_iou

__all__ = ["SLICES", "SLICE_VALUES", "slice_columns", "slice_results", "slice_samples", "value_samples"]

SLICE_VALUES: Mapping[str, str] = {
    "found_rate": "found",
    "box_iou": "iou_box",
    "mask_iou": "iou_mask",
    "point_hit_rate": "hit",
    "scribble_hit_rate": "share",
    "color_accuracy": "color_correct",
    "texture_accuracy": "texture_correct",
}
"""Numbers per instance by name, with their columns; null is not scored."""

_COCO_CANVAS = 512
_SMALL, _LARGE = 32.0**2, 96.0**2
_COUNTS = ((1, "1"), (3, "2-3"), (6, "4-6"))
_OVERLAPS = ((0.0, "none"), (0.1, "below 0.1"), (0.5, "0.1 to 0.5"))


def slice_columns(layout: Layout, canvas_size: int) -> list[dict[str, str]]:
    """The bins of each requested instance.

    ``size``: COCO's small, medium and large (32 and 96 pixels squared) by the area of the box on a canvas of 512
    pixels; on smaller canvases the limits shrink with it. ``instances_in_image``: requested ones. ``overlap``: the
    largest IoU of its box with that of another requested instance. ``position``: the cell of a 3x3 grid in which the
    centre of its box lies.

    Args:
        layout: Full layout; every requested instance has a box.
        canvas_size: Side of the canvas in pixels.

    Returns:
        One entry per requested instance.
    """
    requested = layout.requested
    if not requested:
        return []
    relative = np.array([one.box_xyxy for one in requested], dtype=np.float64)
    boxes = boxes_xyxy_to_pixels(relative, canvas_size, canvas_size)
    overlaps = _largest_overlaps(boxes)
    scale = min(1.0, canvas_size / _COCO_CANVAS) ** 2
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    centres = (relative[:, :2] + relative[:, 2:]) / 2
    count = next((name for limit, name in _COUNTS if len(requested) <= limit), "7 or more")
    return [
        {
            "size": _size(float(area) / scale),
            "instances_in_image": count,
            "overlap": next((name for limit, name in _OVERLAPS if overlap <= limit), "above 0.5"),
            "position": _position(float(x), float(y)),
        }
        for area, overlap, (x, y) in zip(areas, overlaps, centres, strict=True)
    ]


def _largest_overlaps(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    boxes = boxes_xyxy_to_xywh(boxes_xyxy)
    ious = pairwise_iou(list(boxes), list(boxes))
    np.fill_diagonal(ious, 0.0)
    largest: NDArray[np.float64] = ious.max(axis=1)
    return largest


def _size(area: float) -> str:
    return "small" if area < _SMALL else "medium" if area < _LARGE else "large"


def _position(x: float, y: float) -> str:
    outside = sum(not 1 / 3 <= value <= 2 / 3 for value in (x, y))
    return ("centre", "edge", "corner")[outside]


def slice_results(
    rows: Sequence[Mapping[str, Any]],
    image_keys: Sequence[str],
    resamples: Resamples | None = None,
) -> dict[str, dict[str, dict[str, SliceRecord]]]:
    """The mean of every number in every bin, with its interval over images.

    Args:
        rows: Rows of ``instances.parquet``.
        image_keys: Keys of all images of the run, in order.
        resamples: Resamples of the images; None leaves the intervals out.

    Returns:
        By number, slice and bin. Numbers that no row has, and slices without bins, are left out; an instance without
        the number counts as not scored in its bin.
    """
    results: dict[str, dict[str, dict[str, SliceRecord]]] = {}
    for (name, slice_name, label), samples in slice_samples(rows, image_keys).items():
        bins = results.setdefault(name, {}).setdefault(slice_name, {})
        total = sum(row[slice_name] == label for row in rows)
        n_scored = int(samples.counts.sum())
        bins[label] = SliceRecord(
            value=samples.value(),
            n_scored=n_scored,
            n_unscored=total - n_scored,
            ci95=None if resamples is None else interval(samples, resamples),
        )
    return results


def slice_samples(
    rows: Sequence[Mapping[str, Any]], image_keys: Sequence[str]
) -> dict[tuple[str, str, str], RatioSamples]:
    """Values of the instances by (number, slice, bin), in the order of `bin_order` within a slice.

    Args:
        rows: Rows of ``instances.parquet``.
        image_keys: Keys of all images of the run, in order.
    """
    found: dict[tuple[str, str, str], RatioSamples] = {}
    for name, column in SLICE_VALUES.items():
        if all(row[column] is None for row in rows):
            continue
        for slice_name in SLICES:
            bins: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
            for row in rows:
                if row[slice_name] is not None:
                    values = bins[row[slice_name]]
                    if row[column] is not None:
                        values.append((row["image_key"], float(row[column])))
            for label, values in sorted(bins.items(), key=lambda one: bin_order(one[0])):
                found[name, slice_name, label] = RatioSamples.of(image_keys, values)
    return found


def value_samples(rows: Sequence[Mapping[str, Any]], image_keys: Sequence[str]) -> dict[str, RatioSamples]:
    """Values of all instances by number; numbers that no row has are left out.

    Args:
        rows: Rows of ``instances.parquet``.
        image_keys: Keys of all images of the run, in order.
    """
    return {
        name: RatioSamples.of(
            image_keys, [(row["image_key"], float(row[column])) for row in rows if row[column] is not None]
        )
        for name, column in SLICE_VALUES.items()
        if any(row[column] is not None for row in rows)
    }
