"""Stage 4, score: layouts and observations become rows per instance and numbers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from instbench.benchmarks.schema import Benchmark
from instbench.execution.catalog import METRICS
from instbench.execution.failures import score_failures
from instbench.execution.intervals import add_intervals
from instbench.execution.matching import Match, coco_results, match_layout
from instbench.execution.observe import Observations
from instbench.execution.session import Evaluators, Session
from instbench.execution.slices import slice_columns, slice_results
from instbench.layouts.types import Instance, Layout
from instbench.runs.records import EvaluatorRecord, MetricRecord, ResultsRecord, RunRecord
from instbench.runs.store import RunFolder
from instbench.runs.tables import write_table
from instbench.statistics.average_precision import ApSamples
from instbench.statistics.resampling import draw_resamples
from instbench.statistics.samples import RatioSamples, Samples
from instbench.statistics.store import write_samples
from metrics.functional.match_table import MatchTable

__all__ = ["NO_IMAGE", "RowKey", "ScoreContext", "score_run"]

logger = logging.getLogger(__name__)

NO_IMAGE = "no image"
UNKNOWN_CATEGORY = "category unknown to the detector"
RowKey = tuple[str, int]

ROW_SCHEMA = pa.schema(
    [
        ("image_key", pa.string()),
        ("image_id", pa.int64()),
        ("annotation_id", pa.int64()),
        ("category", pa.string()),
        ("phrase", pa.string()),
        ("asked_as", pa.string()),
        ("asked_color", pa.string()),
        ("asked_texture", pa.string()),
        ("found", pa.bool_()),
        ("score", pa.float64()),
        ("iou_box", pa.float64()),
        ("iou_mask", pa.float64()),
        ("hit", pa.bool_()),
        ("share", pa.float64()),
        ("color_seen", pa.string()),
        ("color_correct", pa.bool_()),
        ("texture_seen", pa.string()),
        ("texture_correct", pa.bool_()),
        ("leaked_from", pa.list_(pa.int64())),
        ("similarity", pa.float64()),
        ("failure", pa.string()),
        ("merged_with", pa.list_(pa.int64())),
        ("size", pa.string()),
        ("instances_in_image", pa.string()),
        ("overlap", pa.string()),
        ("position", pa.string()),
        ("not_scored", pa.string()),
    ]
)


@dataclass
class ScoreContext:
    """What a metric's scorer works on.

    Attributes:
        benchmark: The benchmark.
        layouts: Full layouts of the run, in order.
        observations: What the evaluators saw.
        evaluators: The evaluators.
        session: Networks and shared features.
        seed: The user's seed; metrics that draw at random derive theirs from it.
        rows: One row per requested instance by (image key, annotation id); scorers fill columns in.
        cache: Results that several metrics share.
        metric: Name of the metric that is being scored.
        samples: What the numbers are made of by image, by metric; scorers give it with `keep`.
    """

    benchmark: Benchmark
    layouts: tuple[Layout, ...]
    observations: Observations
    evaluators: Evaluators
    session: Session
    seed: int = 0
    rows: dict[RowKey, dict[str, Any]] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    metric: str = ""
    samples: dict[str, Samples] = field(default_factory=dict)

    @cached_property
    def image_keys(self) -> tuple[str, ...]:
        """Keys of the layouts, in order."""
        return tuple(layout.image_key for layout in self.layouts)

    @cached_property
    def _key_of(self) -> dict[int, str]:
        return {one.annotation_id: layout.image_key for layout in self.layouts for one in layout.instances}

    def keep(self, samples: Samples) -> None:
        """Keeps what the number of the current metric is made of, for its interval."""
        self.samples[self.metric] = samples

    def keep_units(self, values: Iterable[tuple[int, float]]) -> None:
        """The same for a mean over objects, from (annotation id, value) pairs."""
        self.keep(RatioSamples.of(self.image_keys, ((self._key_of[one], value) for one, value in values)))

    def keep_matches(self, table: MatchTable | None, number: str) -> None:
        """The same for a number of average precision, from the matches behind it."""
        if table is not None and table.image_ids.tolist() == [layout.image_id for layout in self.layouts]:
            self.keep(ApSamples(table, number))

    def row(self, annotation_id: int) -> dict[str, Any]:
        """The row of an annotation (ids are unique in a run); a spare one if it is not requested."""
        return self._rows_by_id.get(annotation_id, {})

    @cached_property
    def _rows_by_id(self) -> dict[int, dict[str, Any]]:
        return {annotation_id: row for (_, annotation_id), row in self.rows.items()}

    def reason_unscored(self, instance: Instance) -> str | None:
        """Why an instance cannot be scored by a detector, or None. In an image that is missing it is missed."""
        detector = self.evaluators.detector
        if detector is not None and instance.category not in detector.categories:
            return UNKNOWN_CATEGORY
        return None

    @cached_property
    def observed(self) -> tuple[Layout, ...]:
        """Layouts whose image exists."""
        return tuple(one for one in self.layouts if one.image_key not in self.observations.missing)

    @cached_property
    def unscored(self) -> Counter[str]:
        """Reasons why requested instances cannot be scored, with counts."""
        reasons: Counter[str] = Counter()
        for layout in self.layouts:
            for instance in layout.requested:
                reason = self.reason_unscored(instance)
                if reason is not None:
                    reasons[reason] += 1
        return reasons

    @cached_property
    def unknown_categories(self) -> list[str]:
        """Requested categories that the detector does not know, sorted."""
        detector = self.evaluators.detector
        if detector is None:
            return []
        asked = {one.category for layout in self.layouts for one in layout.requested}
        return sorted(asked - set(detector.categories))

    @cached_property
    def truth(self) -> dict[str, Any]:
        """Ground truth at canvas size, as a COCO dict, of all instances that can be scored."""
        from instbench.layouts.ground_truth import canvas_ground_truth

        truth = canvas_ground_truth(self.layouts, self.benchmark.canvas_size)
        detector = self.evaluators.detector
        if detector is not None:
            known = {one["id"] for one in truth["categories"] if one["name"] in detector.categories}
            truth["categories"] = [one for one in truth["categories"] if one["id"] in known]
            truth["annotations"] = [one for one in truth["annotations"] if one["category_id"] in known]
        return truth

    @cached_property
    def detections(self) -> list[dict[str, Any]]:
        """Detections of the truth's categories, as a COCO results list."""
        ids = {one["name"]: one["id"] for one in self.truth["categories"]}
        return self._results(ids)

    @cached_property
    def detections_of_all_classes(self) -> list[dict[str, Any]]:
        """All detections, also of categories that were not asked for; those get ids of their own."""
        ids = {one["name"]: one["id"] for one in self.truth["categories"]}
        names = {name for seen in self.observations.detections.values() for name in seen.categories}
        free = 1 + max(ids.values(), default=0)
        ids |= {name: free + number for number, name in enumerate(sorted(names - ids.keys()))}
        return self._results(ids)

    @cached_property
    def indices_of_all_classes(self) -> list[int]:
        """Position in `detections_of_all_classes` of each entry of `detections`."""
        asked = {one["id"] for one in self.truth["categories"]}
        everything = enumerate(self.detections_of_all_classes)
        return [index for index, entry in everything if entry["category_id"] in asked]

    def _results(self, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        results = []
        for layout in self.observed:
            seen = self.observations.detections.get(layout.image_key)
            if seen is not None:
                results += coco_results(seen, layout.image_id, category_ids)
        return results

    @cached_property
    def matches(self) -> dict[RowKey, Match | None]:
        """The detection that answers each instance that can be scored, None where it was not found."""
        matches: dict[RowKey, Match | None] = {}
        if self.evaluators.detector is None:
            return matches
        for layout in self.layouts:
            seen = self.observations.detections.get(layout.image_key)
            found: list[Match | None] = [None] * len(layout.requested)
            if seen is not None:
                found = match_layout(layout, seen, self.benchmark.canvas_size)
            for instance, match in zip(layout.requested, found, strict=True):
                if self.reason_unscored(instance) is None:
                    matches[layout.image_key, instance.annotation_id] = match
        return matches


def score_run(
    folder: RunFolder,
    record: RunRecord,
    benchmark: Benchmark,
    layouts: tuple[Layout, ...],
    observations: Observations,
    evaluators: Evaluators,
    session: Session,
) -> ResultsRecord:
    """Scores a run and writes ``instances.parquet`` and ``results.json``.

    Args:
        folder: The run folder.
        record: The run's record.
        benchmark: The benchmark.
        layouts: Full layouts, in order.
        observations: What the evaluators saw.
        evaluators: The evaluators.
        session: Networks and shared features.

    Returns:
        The results. Whatever could not be scored is counted with its reason.

    Raises:
        InputError: If a metric or one of its parameters is unknown.
    """
    seed = int(record.identity.get("seed", 0))
    context = ScoreContext(benchmark, layouts, observations, evaluators, session, seed)
    _start_rows(context)
    for reason, count in context.unscored.items():
        listed = f" ({', '.join(context.unknown_categories)})" if reason == UNKNOWN_CATEGORY else ""
        logger.warning("%s: %d instances not scored: %s%s", benchmark.name, count, reason, listed)
    metrics: dict[str, MetricRecord] = {}
    for metric in benchmark.metrics:
        entry = METRICS.get(metric.name)
        context.metric = metric.name
        metrics[metric.name] = entry.factory()(context, **{**(entry.options or {}), **metric.params})
    failures = score_failures(context)
    rows = list(context.rows.values())
    resamples = draw_resamples(len(context.image_keys))
    add_intervals(metrics, context.samples, resamples)
    write_samples(folder.samples_npz, context.image_keys, context.samples)
    write_table(folder.instances_parquet, pa.Table.from_pylist(rows, schema=ROW_SCHEMA))
    requested = sum(len(layout.requested) for layout in layouts)
    results = ResultsRecord(
        identity_sha256=record.identity_sha256,
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        edition=benchmark.edition,
        model=record.model,
        evaluators=_evaluator_records(benchmark, evaluators),
        metrics_asked=[metric.name for metric in benchmark.metrics],
        metrics=metrics,
        slices=slice_results(rows, context.image_keys, resamples),
        failures=failures,
        counts={
            "images": len(layouts),
            "images_missing": len(observations.missing),
            "instances_requested": requested,
            "instances_ignored": sum(len(layout.instances) for layout in layouts) - requested,
        },
    )
    folder.write_results(results)
    return results


def _evaluator_records(benchmark: Benchmark, evaluators: Evaluators) -> dict[str, EvaluatorRecord]:
    names = benchmark.evaluators.model_dump(exclude_none=True)
    return {
        role: EvaluatorRecord(
            name=names.get(role, ""), kind=str(facts.get("kind", "")), sha256=dict(facts.get("sha256", {}))
        )
        for role, facts in evaluators.identity().items()
    }


def _start_rows(context: ScoreContext) -> None:
    for layout in context.layouts:
        bins = slice_columns(layout, context.benchmark.canvas_size)
        for instance, columns in zip(layout.requested, bins, strict=True):
            key = (layout.image_key, instance.annotation_id)
            row: dict[str, Any] = dict.fromkeys(ROW_SCHEMA.names)
            row.update(
                columns,
                image_key=layout.image_key,
                image_id=layout.image_id,
                annotation_id=instance.annotation_id,
                category=instance.category,
                phrase=instance.phrase,
                asked_as=None if instance.condition is None else str(instance.condition),
                asked_color=instance.color,
                asked_texture=instance.texture,
                not_scored=context.reason_unscored(instance),
            )
            if key in context.matches:
                match = context.matches[key]
                row["found"], row["iou_box"] = match is not None, 0.0
                if match is not None:
                    row["score"], row["iou_box"] = match.score, match.iou
            context.rows[key] = row
