"""Boards: the runs that may be compared, with rank ranges that do not claim more than the intervals do.

Runs share a board when benchmark, version, edition, number of images and objects, and the evaluators' files are
the same. The real images of the data set join as the ceiling, under the same conditions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from leaderboards.submissions import Submission

__all__ = ["Board", "Entry", "Number", "make_boards", "rank_ranges"]

_Z95 = 1.959963984540054
_LEVEL = 0.05
_CEILING = ("real-images", "real_images")
_FLOOR = ("text-only", "text_only")


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a run: value, 95 % interval, units behind it, and whether more is better."""

    value: float | None
    ci95: tuple[float, float] | None
    n_scored: int
    n_unscored: int
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a board.

    Attributes:
        submission: The filed run.
        role: ``""``, ``"ceiling"`` or ``"floor"``; these two have no rank.
        numbers: Numbers by metric.
        ranks: Best and worst rank that the intervals allow, by metric.
    """

    submission: Submission
    role: str
    numbers: dict[str, Number]
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Board:
    """Runs that may stand in one table.

    Attributes:
        id: Hash of everything that the runs have in common.
        benchmark: Benchmark name.
        version: Its version.
        edition: ``"strict"`` or ``"paper"``.
        dataset: The benchmark's name without its last word.
        condition: Its last word: box, mask, point, ...
        images: Images asked.
        instances: Objects asked.
        evaluators: Names of the evaluators by role.
        metrics: Metrics, in the order of the benchmark where the files tell it.
        entries: The runs.
    """

    id: str
    benchmark: str
    version: int
    edition: str
    dataset: str
    condition: str
    images: int
    instances: int
    evaluators: dict[str, str]
    metrics: list[str]
    entries: list[Entry]

    @property
    def title(self) -> str:
        """Heading, e.g. ``"shapes-box v1 strict, 256 images"``."""
        return f"{self.benchmark} v{self.version} {self.edition}, {self.images} images"


def rank_ranges(numbers: dict[str, Number]) -> dict[str, tuple[int, int]]:
    """Best and worst rank of every run that the intervals allow.

    Two numbers differ when an unpaired normal test says so after Holm's correction over all pairs. The standard errors
    come from the sides of the 95 % intervals that face each other, since intervals near 0 and 1 are lopsided (Newcombe
    1998). Runs without an interval get no rank.

    Args:
        numbers: One metric of every run, by any key.

    Returns:
        Ranks from 1, both ends included: one more than the runs that are surely better, and as many as there are less
        those that are surely worse. Runs with a rank in common need not tie, if a third ties with both.
    """
    known = {key: one for key, one in numbers.items() if one.value is not None and one.ci95 is not None}
    tests = []
    for pair in combinations(known, 2):
        high, low = sorted(pair, key=lambda key: known[key].value or 0.0, reverse=True)
        better, worse = (high, low) if known[high].higher_is_better else (low, high)
        tests.append((_p_value(known[high], known[low]), better, worse))
    above = dict.fromkeys(known, 0)
    below = dict.fromkeys(known, 0)
    for position, (p, better, worse) in enumerate(sorted(tests)):
        if p * (len(tests) - position) >= _LEVEL:
            break
        above[worse] += 1
        below[better] += 1
    return {key: (1 + above[key], len(known) - below[key]) for key in known}


def _p_value(high: Number, low: Number) -> float:
    """Two-sided, of no difference; both have an interval."""
    if high.value is None or low.value is None or high.ci95 is None or low.ci95 is None:
        return 1.0
    gap = high.value - low.value
    error = math.hypot(high.value - high.ci95[0], low.ci95[1] - low.value) / _Z95
    if error <= 0:
        return float(gap <= 0)
    return math.erfc(gap / error / math.sqrt(2))


def _number(record: dict[str, Any]) -> Number:
    interval = record.get("ci95")
    return Number(
        value=record["value"],
        ci95=None if interval is None else (interval[0], interval[1]),
        n_scored=record["n_scored"],
        n_unscored=record["n_unscored"],
        unit=record["unit"],
        higher_is_better=record["higher_is_better"],
    )


def _hashes(one: Submission) -> dict[str, Any]:
    return {role: record["sha256"] for role, record in one.results.get("evaluators", {}).items()}


def _parts(benchmark: str) -> tuple[str, str]:
    dataset, _, condition = benchmark.rpartition("-")
    return (dataset, condition) if dataset else (benchmark, "other")


def _key(one: Submission) -> str:
    content, counts = one.results, one.results["counts"]
    names = [content["benchmark"], content["benchmark_version"], content["edition"]]
    numbers = [counts["images"], counts["instances_requested"]]
    return json.dumps([names, numbers, _hashes(one)], sort_keys=True)


def _is_ceiling_of(ceiling: Submission, first: Submission) -> bool:
    mine, other = ceiling.results, first.results
    hashes = _hashes(ceiling)
    return (
        _parts(mine["benchmark"]) == (_parts(other["benchmark"])[0], "real")
        and mine["benchmark"] != other["benchmark"]
        and mine["benchmark_version"] == other["benchmark_version"]
        and mine["edition"] == other["edition"]
        and all(mine["counts"][name] == other["counts"][name] for name in ("images", "instances_requested"))
        and all(hashes.get(role) == files for role, files in _hashes(first).items())
    )


def make_boards(submissions: Sequence[Submission]) -> list[Board]:
    """Sorts submissions into boards, ordered by benchmark, version and edition."""
    groups: dict[str, list[Submission]] = {}
    for one in submissions:
        groups.setdefault(_key(one), []).append(one)
    boards = [_board(key, members, submissions) for key, members in groups.items()]
    return sorted(
        boards, key=lambda one: (one.benchmark, one.version, one.edition != "strict", -one.images, one.id)
    )


def _board(key: str, members: list[Submission], everything: Sequence[Submission]) -> Board:
    content, counts = members[0].results, members[0].results["counts"]
    # The benchmark's own order, the headline first: files sort their keys by letter.
    asked = [name for one in members for name in one.results.get("metrics_asked") or ()]
    there = dict.fromkeys(name for one in members for name in one.results["metrics"])
    metrics = list(dict.fromkeys([*(name for name in asked if name in there), *there]))
    real = [one for one in everything if _is_ceiling_of(one, members[0])]
    if any(_is_ceiling(one) for one in members):  # the real images were run on this benchmark itself
        real = []
    entries = [_entry(one, metrics) for one in [*members, *real]]
    for metric in metrics:
        numbers = {
            one.submission.id: one.numbers[metric]
            for one in entries
            if not one.role and metric in one.numbers
        }
        ranks = rank_ranges(numbers)
        for one in entries:
            if one.submission.id in ranks:
                one.ranks[metric] = ranks[one.submission.id]
    dataset, condition = _parts(content["benchmark"])
    return Board(
        id=hashlib.sha256(key.encode()).hexdigest()[:12],
        benchmark=content["benchmark"],
        version=content["benchmark_version"],
        edition=content["edition"],
        dataset=dataset,
        condition=condition,
        images=counts["images"],
        instances=counts["instances_requested"],
        evaluators={
            role: str(record.get("name", "")) for role, record in content.get("evaluators", {}).items()
        },
        metrics=metrics,
        entries=entries,
    )


def _is_ceiling(one: Submission) -> bool:
    return one.results["model"] in _CEILING or _parts(one.results["benchmark"])[1] == "real"


def _entry(one: Submission, metrics: list[str]) -> Entry:
    role = "ceiling" if _is_ceiling(one) else "floor" if one.results["model"] in _FLOOR else ""
    records = one.results["metrics"]
    return Entry(one, role, {name: _number(records[name]) for name in metrics if name in records})
