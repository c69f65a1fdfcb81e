"""The metrics that a benchmark can name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from instbench.benchmarks.schema import Benchmark, MetricSpec
from instbench.errors import InputError
from instbench.registry import Entry, Registry

__all__ = [
    "METRICS",
    "NO_EVALUATOR",
    "PAPER_METRICS",
    "asked_attributes",
    "check_metrics",
    "needed_roles",
    "replace_evaluators",
]

_SCORERS = "instbench.execution.scorers"
_PAPER = "instbench.execution.scorers_paper"


def _average_precision(name: str, summary: str, iou_type: str, number: str) -> Entry:
    return Entry(name, summary, f"{_SCORERS}:average_precision", {"iou_type": iou_type, "number": number})


METRICS = Registry(
    "metric",
    "instbench.metrics",
    (
        _average_precision("box_ap", "box AP, mean over IoU .50 to .95", "bbox", "ap"),
        _average_precision("box_ap50", "box AP at IoU .50", "bbox", "ap50"),
        _average_precision("box_ap75", "box AP at IoU .75", "bbox", "ap75"),
        *(
            _average_precision(f"box_{name}", summary, "bbox", name)
            for name, summary in (
                ("ap_small", "box AP of small objects"),
                ("ap_medium", "box AP of medium objects"),
                ("ap_large", "box AP of large objects"),
                ("ar1", "box AR, one detection an image"),
                ("ar10", "box AR, at most 10 detections an image"),
            )
        ),
        *(
            _average_precision(f"mask_{name}", summary, "segm", name)
            for name, summary in (
                ("ap_small", "mask AP of small objects"),
                ("ap_medium", "mask AP of medium objects"),
                ("ap_large", "mask AP of large objects"),
                ("ar1", "mask AR, one detection an image"),
                ("ar10", "mask AR, at most 10 detections an image"),
            )
        ),
        _average_precision("box_ar100", "box AR, at most 100 detections an image", "bbox", "ar100"),
        _average_precision("mask_ap", "mask AP, mean over IoU .50 to .95", "segm", "ap"),
        _average_precision("mask_ap50", "mask AP at IoU .50", "segm", "ap50"),
        _average_precision("mask_ap75", "mask AP at IoU .75", "segm", "ap75"),
        _average_precision("mask_ar100", "mask AR, at most 100 detections an image", "segm", "ar100"),
        *(
            Entry(
                f"lvis_{kind}_{number}",
                f"LVIS {kind} AP, {summary}",
                "instbench.execution.scorers_lvis:federated_average_precision",
                {"iou_type": iou_type, "number": number.replace("ap", "AP")},
            )
            for kind, iou_type in (("box", "bbox"), ("mask", "segm"))
            for number, summary in (
                ("ap", "mean over IoU .50 to .95"),
                ("ap50", "at IoU .50"),
                ("ap75", "at IoU .75"),
                ("apr", "rare categories"),
                ("apc", "common categories"),
                ("apf", "frequent categories"),
            )
        ),
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
        *(
            Entry(
                f"{attribute}_{name}",
                summary,
                f"{_SCORERS}:attribute_accuracy",
                {"attribute": attribute, "number": number},
            )
            for attribute in ("color", "texture")
            for name, number, summary in (
                (
                    "accuracy_given_found",
                    "accuracy_given_found",
                    f"asked {attribute} seen, found objects alone",
                ),
                ("leakage", "leakage_rate", f"found objects with another one's {attribute}"),
                (
                    "clip_score",
                    "local_similarity",
                    f"similarity of found objects to their phrase ({attribute})",
                ),
            )
        ),
        Entry(
            "pim_point",
            "paper edition: box centre of the mask inside the greedily matched mask",
            f"{_PAPER}:points_in_mask",
            {"kind": "point"},
        ),
        Entry(
            "pim_scribble",
            "paper edition: redrawn scribble points inside the greedily matched mask",
            f"{_PAPER}:points_in_mask",
            {"kind": "scribble"},
        ),
        *(
            Entry(
                f"{attribute}_{name}_paper",
                f"paper edition: {summary} on the crop of the asked box, mean of image means",
                f"{_PAPER}:attribute_binding",
                {"attribute": attribute, "number": number},
            )
            for attribute in ("color", "texture")
            for name, number, summary in (
                ("accuracy", "accuracy", f"asked {attribute} seen"),
                ("clip_score", "local_similarity", "similarity to the asked phrase"),
            )
        ),
        Entry(
            "clip_score",
            "whole images against their captions, 100 times the cosine",
            f"{_SCORERS}:image_clip_score",
        ),
        Entry(
            "fid",
            "Frechet distance to the real images of the layouts",
            f"{_SCORERS}:feature_distance",
            {"kind": "fid"},
        ),
        Entry(
            "kid",
            "kernel distance to the real images of the layouts",
            f"{_SCORERS}:feature_distance",
            {"kind": "kid"},
        ),
    ),
)

PAPER_METRICS = frozenset(entry.name for entry in METRICS if str(entry.target).startswith(f"{_PAPER}:"))
"""Metrics that compute what the published scripts compute; only ``paper`` benchmarks may name them."""
_BOTH = ("box_", "mask_ap", "mask_ar")
"""COCO numbers, the same function in both editions."""


NO_EVALUATOR = "none"
"""Name that leaves an evaluator out, with the metrics that need it."""


def replace_evaluators(benchmark: Benchmark, names: Mapping[str, str]) -> Benchmark:
    """The benchmark with other evaluators; "none" leaves one out, and the metrics that need it.

    Args:
        benchmark: The benchmark.
        names: Evaluator by role ("detector", "image_text", "features").

    Raises:
        InputError: If no metric is left.
    """
    replaced = benchmark.with_evaluators({role: n for role, n in names.items() if n != NO_EVALUATOR})
    for role in (role for role, name in names.items() if name == NO_EVALUATOR):
        kept = tuple(metric for metric in replaced.metrics if role not in needed_roles(metric.name))
        if not kept:
            raise InputError(
                f"--{role.replace('_', '-')} none: every number of {benchmark.name} needs it; give one"
            )
        evaluators = replaced.evaluators.model_copy(update={role: None})
        replaced = replaced.model_copy(update={"evaluators": evaluators, "metrics": kept})
    return replaced


def needed_roles(name: str) -> frozenset[str]:
    """Roles of the evaluators that a built-in metric needs; a plug-in's are not known."""
    entry = METRICS.get(name)
    target, options = str(entry.target), dict(entry.options or {})
    if target == f"{_SCORERS}:feature_distance":
        return frozenset({"features"})
    if target == f"{_SCORERS}:image_clip_score":
        return frozenset({"image_text"})
    if "attribute" in options:
        published = target.startswith(f"{_PAPER}:")
        return frozenset({"image_text"} if published else {"image_text", "detector"})
    ours = target.startswith("instbench.execution.")
    return frozenset({"detector"} if ours else ())


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
        InputError: If a metric is unknown, belongs to the other edition, or does not take one of its
            parameters.
    """
    for metric in benchmark.metrics:
        entry = METRICS.get(metric.name)
        _check_edition(benchmark, metric.name, entry)
        _check_formats(benchmark, metric)
        try:
            inspect.signature(entry.factory()).bind(None, **{**(entry.options or {}), **metric.params})
        except TypeError as error:
            raise InputError(f"{benchmark.name}: metric {metric.name}: params: {error}") from None


def _check_edition(benchmark: Benchmark, name: str, entry: Entry) -> None:
    ours = str(entry.target).startswith((f"{_PAPER}:", f"{_SCORERS}:"))  # a plug-in's is its own business
    if not ours or name.startswith(_BOTH):
        return
    belongs = "paper" if name in PAPER_METRICS else "strict"
    if benchmark.edition != belongs:
        raise InputError(
            f"{benchmark.name}: metric {name} belongs to the {belongs} edition; "
            f"the benchmark's is {benchmark.edition}"
        )


def _check_formats(benchmark: Benchmark, metric: MetricSpec) -> None:
    formats = metric.params.get("asked_as")
    if formats is None:
        return
    known = [str(one) for one in benchmark.conditions] if benchmark.hybrid else []
    if not isinstance(formats, list) or not formats or not set(formats) <= set(known):
        raise InputError(
            f"{benchmark.name}: metric {metric.name}: params.asked_as: {formats!r} must be a list of "
            f"conditions of a hybrid benchmark ({', '.join(known) or 'this one is not'})"
        )
