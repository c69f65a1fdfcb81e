"""`instbench doctor`: is this installation sound?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from instbench.cli.options import EVALUATOR_OPTIONS, add_evaluator_options, add_network_options, session_from
from instbench.cli.output import say
from instbench.errors import EXIT_DONE, EXIT_FAILURES

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("doctor", help="check layouts, evaluators and models on known pictures")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    add_evaluator_options(parser, "check only these evaluators")
    add_network_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the verb; exit code 1 if a check fails."""
    from instbench.execution.doctor import run_checks
    from instbench.runs.environment import machine, package_versions

    given = {role: getattr(args, role) for role in EVALUATOR_OPTIONS}
    evaluators = {role: name for role, name in given.items() if name is not None}
    checks = []
    for check in run_checks(session_from(args), evaluators):
        checks.append(check)
        if not args.json:
            say(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}", flush=True)
    facts = {**package_versions(), **machine()}
    failed = [check.name for check in checks if not check.passed]
    if args.json:
        print(json.dumps({"checks": [asdict(check) for check in checks], "environment": facts}, indent=2))
    else:
        say(", ".join(f"{name} {value}" for name, value in facts.items()))
        say(f"{len(failed)} of {len(checks)} checks failed" if failed else "all checks passed")
    return EXIT_FAILURES if failed else EXIT_DONE
