"""Benchmarks: a task under a protocol, one YAML file each."""

from __future__ import annotations

from instbench.benchmarks.loading import benchmark_names, load_benchmark
from instbench.benchmarks.schema import Benchmark, CocoData, EvaluatorNames, MetricSpec, ShapesData

__all__ = [
    "Benchmark",
    "CocoData",
    "EvaluatorNames",
    "MetricSpec",
    "ShapesData",
    "benchmark_names",
    "load_benchmark",
]
