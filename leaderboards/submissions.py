"""Submissions: a checked ``results.json`` in a folder that is named after its hash, with a small sidecar.

A board is a folder of submissions: ``<first 16 digits of the file's SHA-256>/results.json`` and
``submission.json`` beside it, and ``report.html`` where the run had one. No name out of the data becomes a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

__all__ = [
    "BADGES",
    "Submission",
    "add_submission",
    "check_results",
    "may_lack_numbers",
    "read_board",
    "results_file",
    "write_file",
]

BADGES = ("self-reported", "reproduced here")
_EDITIONS = ("strict", "paper")
_UNITS = ("fraction", "distance", "score")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{16}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SCHEMA_VERSION = 1
_ASKED = "metrics_asked"
_MOST_BYTES = 50_000_000
_EPSILON = 1e-9
_LARGEST = 1e12


@dataclass(frozen=True, slots=True)
class Submission:
    """One filed submission.

    Attributes:
        id: First 16 digits of the SHA-256 of its ``results.json``.
        results: The content of ``results.json``, checked.
        badge: One of `BADGES`.
        report: The run's report, if one was filed.
    """

    id: str
    results: Mapping[str, Any]
    badge: str = BADGES[0]
    report: Path | None = None


def results_file(path: Path) -> Path:
    """The ``results.json`` of a run folder, or the file itself."""
    return path / "results.json" if path.is_dir() else path


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON allows")


def _load(file: Path) -> Any:
    if file.exists() and not file.is_file():
        raise ValueError("a folder, a pipe or a device")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES // 1_000_000} MB")
    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    json.dumps(
        content, ensure_ascii=False
    ).encode()  # half a surrogate pair is no text, and could not be written
    return content


def check_results(path: Path) -> list[str]:
    """Checks a submission.

    Args:
        path: A ``results.json``, or the run folder that holds it.

    Returns:
        One line for every problem, ``file: field F: why``; empty if there is none.
    """
    file = results_file(path)
    try:
        content = _load(file)
    except FileNotFoundError:
        return [f"{file}: no such file or folder; give a results.json or a finished run"]
    except (OSError, ValueError, RecursionError) as error:
        return [f"{file}: field (root): unreadable ({error}); give a results.json or a finished run"]
    if not isinstance(content, dict):
        return [f"{file}: field (root): not a JSON object; give a results.json"]
    version = content.get("schema_version")
    if isinstance(version, bool) or version != _SCHEMA_VERSION:
        return [
            f"{file}: field schema_version: {str(version)[:40]} is unknown, expected {_SCHEMA_VERSION}; score again"
        ]
    return [f"{file}: field {field}: {why}" for field, why in _problems(content)]


def may_lack_numbers(path: Path) -> bool:
    """Whether checked results do not say which numbers their benchmark asks for, as files of older versions.

    Args:
        path: A ``results.json`` that passes `check_results`, or the run folder that holds it.
    """
    return _load(results_file(path)).get(_ASKED) is None


def _problems(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("benchmark", "model"):
        if not isinstance(content.get(name), str) or not content[name].strip():
            yield name, "must be a name"
        elif _CONTROL.search(content[name]):
            yield name, "holds control characters, which would steer the terminal that shows a table"
    if not _is_count(content.get("benchmark_version")) or content["benchmark_version"] < 1:
        yield "benchmark_version", "must be a whole number of 1 or more"
    if content.get("edition") not in _EDITIONS:
        yield "edition", f"must be one of {', '.join(_EDITIONS)}"
    if not _is_sha256(content.get("identity_sha256")):
        yield "identity_sha256", "must be 64 hexadecimal digits"
    yield from _evaluator_problems(content.get("evaluators", {}))
    counts = content.get("counts")
    if not isinstance(counts, dict):
        yield "counts", "missing; score the run again"
        return
    yield from _count_problems(counts)
    metrics = content.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        yield "metrics", "holds no number"
        return
    yield from _missing_numbers(content.get(_ASKED), metrics)
    for name, record in metrics.items():
        if _CONTROL.search(name):
            yield f"metrics.{name!r}", "holds control characters"
        for field, why in _metric_problems(record, counts):
            yield f"metrics.{name}.{field}".rstrip("."), why


def _missing_numbers(asked: Any, metrics: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if asked is None:
        return
    if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
        yield _ASKED, "must be a list of names or null"
        return
    for name in asked:
        if name not in metrics:
            yield f"metrics.{name}", "missing, the benchmark asks for it; score the run again"


def _evaluator_problems(evaluators: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(evaluators, dict):
        yield "evaluators", "must be an object"
        return
    for role, record in evaluators.items():
        hashes = record.get("sha256") if isinstance(record, dict) else None
        if not isinstance(hashes, dict):
            yield f"evaluators.{role}.sha256", "missing; score the run again"
            continue
        for name, value in hashes.items():
            if not _is_sha256(value):
                yield f"evaluators.{role}.sha256.{name}", "must be 64 hexadecimal digits"


def _count_problems(counts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    wrong = False
    for name in ("images", "images_missing", "instances_requested"):
        if not _is_count(counts.get(name)):
            wrong = True
            yield f"counts.{name}", "must be a whole number of 0 or more"
    if not wrong and counts["images_missing"] > counts["images"]:
        yield "counts.images_missing", f"{counts['images_missing']} of only {counts['images']} images"


def _metric_problems(record: Any, counts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not isinstance(record, dict):
        yield "", "must be an object"
        return
    unit = record.get("unit")
    if unit not in _UNITS:
        yield "unit", f"must be one of {', '.join(_UNITS)}"
    if not isinstance(record.get("higher_is_better"), bool):
        yield "higher_is_better", "must be true or false"
    yield from _value_problems(record, unit)
    scored, unscored = record.get("n_scored"), record.get("n_unscored")
    if not _is_count(scored) or not _is_count(unscored):
        yield "n_scored", "n_scored and n_unscored must be whole numbers of 0 or more"
        return
    total = scored + unscored
    over = "instances_requested" if unit == "fraction" else "images"
    if unit in _UNITS and _is_count(counts.get(over)) and total != counts[over]:
        yield (
            "n_scored",
            f"{scored} scored and {unscored} unscored are {total}, not counts.{over} = {counts[over]}",
        )
    reasons = record.get("reasons", {})
    if not isinstance(reasons, dict) or not all(_is_count(value) for value in reasons.values()):
        yield "reasons", "must hold whole numbers"
    elif sum(reasons.values()) != unscored:
        yield "reasons", f"add up to {sum(reasons.values())}, not to n_unscored = {unscored}"
    if (record.get("value") is None) != (scored == 0) and "value" in record:
        yield "value", "must be null exactly where nothing was scored"


def _value_problems(record: dict[str, Any], unit: Any) -> Iterator[tuple[str, str]]:
    if "value" not in record:
        yield "value", "missing; null where nothing could be scored"
        return
    value, interval = record["value"], record.get("ci95")
    if value is not None and not _is_number(value):
        yield "value", "must be a finite number (at most 1e12) or null"
        return
    if value is not None and unit == "fraction" and not 0 <= value <= 1:
        yield "value", f"{value:g} is outside 0 to 1"
    if interval is None:
        return
    if not isinstance(interval, list) or len(interval) != 2 or not all(map(_is_number, interval)):
        yield "ci95", "must be two finite numbers or null"
    elif value is None or not interval[0] - _EPSILON <= value <= interval[1] + _EPSILON:
        yield "ci95", "must be ordered and hold the value"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST and math.isfinite(value)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def write_file(path: Path, data: bytes) -> None:
    """Writes a whole file atomically."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is no plain file, which alone may be replaced; give another name")
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)  # noqa: PTH105 - replaces an existing file on every platform
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def copy_report(source: Path, target: Path) -> None:
    """Copies ``report.html`` and the files of ``report_files/`` beside it, if there are any; follows no links."""
    for name in ("report.html", "report_files"):
        if (source / name).is_symlink():  # the folder too: it could be any folder of this machine
            continue
        found = [source / name] if name.endswith(".html") else sorted((source / name).glob("*"))
        for file in found:
            if file.is_file() and not file.is_symlink():
                place = target / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)


def add_submission(path: Path, board: Path, *, badge: str = BADGES[0]) -> Path:
    """Files a submission in a board; the same file again changes nothing but the badge.

    Args:
        path: A ``results.json``, or the run folder that holds it.
        board: The board's folder, made if missing.
        badge: One of `BADGES`.

    Returns:
        The submission's folder.

    Raises:
        ValueError: If the submission has a problem; the first line of `check_results`.
    """
    if badge not in BADGES:
        raise ValueError(f"badge {badge!r} is unknown (badges: {', '.join(BADGES)})")
    problems = check_results(path)
    if problems:
        raise ValueError(problems[0])
    file = results_file(path)
    data = file.read_bytes()
    folder = board / hashlib.sha256(data).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    copy_report(file.parent, folder)
    sidecar = {"badge": badge, "schema_version": _SCHEMA_VERSION}
    write_file(folder / "submission.json", (json.dumps(sidecar, indent=2) + "\n").encode())
    write_file(folder / "results.json", data)
    return folder


def read_board(paths: Path | Sequence[Path]) -> list[Submission]:
    """Reads boards, run folders and results files; every one is checked again.

    Args:
        paths: A board, or any mixture of boards, run folders and ``results.json`` files.

    Returns:
        The submissions; the same results only once.

    Raises:
        ValueError: If there is none, or one has a problem.
    """
    found: dict[str, Submission] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        for file in _files(path):
            problems = check_results(file)
            if problems:
                raise ValueError(problems[0])
            one = _submission(file)
            found.setdefault(one.id, one)
    if not found:
        raise ValueError(
            f"{paths}: holds no submission; file one with: instbench leaderboard add RUN -o BOARD"
        )
    return [found[key] for key in sorted(found)]


def _files(path: Path) -> list[Path]:
    if path.is_dir() and not (path / "results.json").exists():
        return sorted(path.glob("*/results.json"))
    return [results_file(path)]


def _submission(file: Path) -> Submission:
    data = file.read_bytes()
    identifier = hashlib.sha256(data).hexdigest()[:16]
    if _ID.fullmatch(file.parent.name) and file.parent.name != identifier:
        raise ValueError(f"{file}: field (root): changed after it was filed; file it again")
    sidecar = file.parent / "submission.json"
    badge = BADGES[0]
    if sidecar.is_file():
        try:
            badge = json.loads(sidecar.read_text(encoding="utf-8"))["badge"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{sidecar}: field badge: unreadable ({error}); file the run again") from error
        if badge not in BADGES:
            raise ValueError(f"{sidecar}: field badge: must be one of {', '.join(BADGES)}")
    report = file.parent / "report.html"
    return Submission(
        identifier, json.loads(data), badge, report if report.is_file() and not report.is_symlink() else None
    )
