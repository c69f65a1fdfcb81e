"""The metrics that a benchmark can name."""

from __future__ import annotations

import inspect

from instbench.benchmarks.schema import Benchmark
from instbench.errors import InputError
from instbench.registry import Entry, Registry

__all__ = ["METRICS", "asked_attributes", "check_metrics"]

_SCORERS = "instbench.execution.scorers"


def _average_precision(name: str, summary: str, iou_type: str, number: str) -> Entry:
    return Entry(name, summary, f"{_SCORERS}:average_precision", {"iou_type": iou_type, "number": number})


METRICS = Registry(
    "metric",
    "instbench.metrics",
    (
        _average_precision("box_ap", "box AP, mean over IoU .50 to .95", "bbox", "ap"),
        _average_precision("box_ap50", "box AP at IoU .50", "bbox", "ap50"),
        _average_precision("box_ap75", "box AP at IoU .75", "bbox", "ap75"),
        _average_precision("box_ar100", "box AR, at most 100 detections an image", "bbox", "ar100"),
        _average_precision("mask_ap", "mask AP, mean over IoU .50 to .95", "segm", "ap"),
        _average_precision("mask_ap50", "mask AP at IoU .50", "segm", "ap50"),
        _average_precision("mask_ap75", "mask AP at IoU .75", "segm", "ap75"),
        _average_precision("mask_ar100", "mask AR, at most 100 detections an image", "segm", "ar100"),
        Entry("mask_iou", "mean IoU of asked and found masks, missing = 0", f"{_SCORERS}:mask_iou"),
        Entry(
            "point_hit_rate",
            "asked points inside a detection of their class",
            f"{_SCORERS}:points_in_mask",
            {"kind": "point"},
        ),
        Entry(
            "scribble_hit_rate",
            "share of the scribble points inside the detection",
            f"{_SCORERS}:points_in_mask",
            {"kind": "scribble"},
        ),
        Entry(
            "color_accuracy",
            "asked colour seen on the found object, missing = wrong",
            f"{_SCORERS}:attribute_accuracy",
            {"attribute": "color"},
        ),
        Entry(
            "texture_accuracy",
            "asked texture seen on the found object, missing = wrong",
            f"{_SCORERS}:attribute_accuracy",
            {"attribute": "texture"},
        ),
        Entry("fid", "Frechet distance to the real images of the layouts", f"{_SCORERS}:fid"),
    ),
)


def asked_attributes(benchmark: Benchmark) -> tuple[str, ...]:
    """Returns the attributes ("color", "texture") that a benchmark's metrics look at."""
    attributes = []
    for metric in benchmark.metrics:
        attribute = dict(METRICS.get(metric.name).options or {}).get("attribute")
        if attribute is not None and attribute not in attributes:
            attributes.append(str(attribute))
    return tuple(attributes)


def check_metrics(benchmark: Benchmark) -> None:
    """Checks the metrics of a benchmark before any image is made.

    Raises:
        InputError: If a metric is unknown or does not take one of its parameters.
    """
    for metric in benchmark.metrics:
        entry = METRICS.get(metric.name)
        try:
            inspect.signature(entry.factory()).bind(None, **{**(entry.options or {}), **metric.params})
        except TypeError as error:
            raise InputError(f"{benchmark.name}: metric {metric.name}: params: {error}") from None
