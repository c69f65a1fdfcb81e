"""`instbench ls`: what there is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from instbench.cli.output import say
from instbench.errors import EXIT_DONE

__all__ = ["register", "run"]

KINDS = ("benchmarks", "models", "evaluators", "metrics")


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("ls", help="list benchmarks, models, evaluators or metrics")
    parser.add_argument("kind", choices=KINDS, nargs="?", help="what to list (default: everything)")
    parser.add_argument(
        "--verbose", action="store_true", help="explain every benchmark: data, conditions, rules, metrics"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    listed = {kind: _rows(kind) for kind in (KINDS if args.kind is None else (args.kind,))}
    details = _details() if args.verbose and "benchmarks" in listed else {}
    if args.json:
        found: dict[str, Any] = {kind: dict(rows) for kind, rows in listed.items()}
        if details:
            found["benchmark_details"] = details
        print(json.dumps(found, indent=2))
        return EXIT_DONE
    for kind, rows in listed.items():
        if len(listed) > 1:
            say(f"{kind}:")
        width = max((len(name) for name, _ in rows), default=0)
        for name, summary in rows:
            say(f"  {name:<{width}}  {summary}")
            for topic, line in details.get(name, {}).items() if kind == "benchmarks" else ():
                say(f"      {topic}: {line}")
    return EXIT_DONE


def _details() -> dict[str, dict[str, str]]:
    """What each benchmark's file says, by the name that is listed."""
    from instbench.benchmarks.describe import describe_benchmark
    from instbench.benchmarks.loading import benchmark_files, read_benchmark

    read = (read_benchmark(path) for editions in benchmark_files().values() for path in editions.values())
    return {_listed_name(one.name, one.edition): describe_benchmark(one) for one in read}


def _listed_name(name: str, edition: str) -> str:
    """Name of a benchmark in the list; strict is the default and goes without saying."""
    return name if edition == "strict" else f"{name} --edition {edition}"


def _rows(kind: str) -> list[tuple[str, str]]:
    from instbench import registry

    if kind == "models":
        return [(entry.name, entry.summary) for entry in registry.GENERATORS]
    if kind == "evaluators":
        registries = [one for one, _ in registry.EVALUATOR_ROLES.values()]
        return [(entry.name, f"{one.kind}: {entry.summary}") for one in registries for entry in one]
    if kind == "metrics":
        from instbench.execution.catalog import METRICS

        return [(entry.name, entry.summary) for entry in METRICS]
    from instbench.benchmarks.loading import benchmark_files, read_benchmark

    return [
        (_listed_name(name, edition), f"{read_benchmark(path).description} [{edition}]")
        for name, editions in sorted(benchmark_files().items())
        for edition, path in sorted(editions.items(), reverse=True)  # strict, the default, first
    ]
