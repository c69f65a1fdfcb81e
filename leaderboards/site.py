"""The static site: one page that works from the disk, without server and without asking anything of the network.

Everything that comes from data is embedded as JSON and set as text by the page's script; a Content-Security-Policy
lets only the page's own script and style run, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from leaderboards.boards import Board, Entry, make_boards
from leaderboards.published import PUBLISHED, PublishedNumber, read_published
from leaderboards.submissions import copy_report, read_board, write_file
from leaderboards.tables import frame_csv, numbers_frame

__all__ = ["build_site"]

_ASSETS = Path(__file__).with_name("assets")
_REMARK = re.compile(r"\s*\([^()]*\)$")
_ROUNDING = 0.5 + 1e-9  # of a percentage


def build_site(board_dir_or_results: Path | Sequence[Path], output: Path) -> Path:
    """Builds the site.

    Args:
        board_dir_or_results: Boards, run folders or ``results.json`` files.
        output: Folder, made if missing. Files of an older site in it are replaced.

    Returns:
        Its ``index.html``.

    Raises:
        ValueError: If there is no submission, or one has a problem; one line that names file and field.
    """
    boards = make_boards(read_board(board_dir_or_results))
    output.mkdir(parents=True, exist_ok=True)
    reports = {one.submission.id: one.submission.report for board in boards for one in board.entries}
    for identifier, report in reports.items():
        if report is not None:
            copy_report(report.parent, output / "reports" / identifier)
    measured = [_board_json(board) for board in boards]
    files = {
        "measured.csv": frame_csv(numbers_frame(boards)),
        "published.csv": PUBLISHED.read_text(encoding="utf-8"),
    }
    data = {"boards": measured, "published": _published_json(read_published()), "files": files}
    for name, text in files.items():
        write_file(output / name, text.encode())
    write_file(output / "measured.json", (_json(measured, indent=2) + "\n").encode())
    index = output / "index.html"
    write_file(index, _page(data).encode())
    return index


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=True)


def _embedded(value: Any) -> str:
    """JSON that cannot end the element that holds it; line separators are escaped by `_json`."""
    return _json(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(data: Any) -> str:
    css, script, html = (
        (_ASSETS / f"site.{ending}").read_text(encoding="utf-8") for ending in ("css", "js", "html")
    )
    policy = [
        "default-src 'none'",
        f"script-src {_source_hash(script)}",
        f"style-src {_source_hash(css)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return Template(html).substitute(css=css, script=script, csp="; ".join(policy), data=_embedded(data))


def _entry_json(one: Entry) -> dict[str, Any]:
    numbers = {name: {**asdict(number), "rank": one.ranks.get(name)} for name, number in one.numbers.items()}
    return {
        "id": one.submission.id,
        "model": one.submission.results["model"],
        "identity_sha256": one.submission.results["identity_sha256"],
        "role": one.role,
        "badge": one.submission.badge,
        "report": f"reports/{one.submission.id}/report.html" if one.submission.report else None,
        "numbers": numbers,
    }


def _board_json(board: Board) -> dict[str, Any]:
    return {
        "id": board.id,
        "benchmark": board.benchmark,
        "version": board.version,
        "edition": board.edition,
        "dataset": board.dataset,
        "condition": board.condition,
        "images": board.images,
        "instances": board.instances,
        "evaluators": board.evaluators,
        "metrics": board.metrics,
        "rows": [_entry_json(one) for one in board.entries],
    }


def _published_json(numbers: Sequence[PublishedNumber]) -> list[dict[str, Any]]:
    """One row per method, benchmark and metric, with every number that some source gives for it.

    A remark in brackets behind a benchmark says whose measurement it is; it stays with the number.
    """
    groups: dict[tuple[str, str, str], list[PublishedNumber]] = {}
    for one in numbers:
        benchmark = _REMARK.sub("", one.benchmark)
        groups.setdefault((one.method, benchmark, one.metric), []).append(one)
    return [
        {
            "method": method,
            "benchmark": benchmark,
            "metric": metric,
            "higher_is_better": members[0].higher_is_better,
            "conflict": any(_differ(one, members[0]) for one in members[1:]),
            "numbers": [_published_number(one) for one in members],
        }
        for (method, benchmark, metric), members in groups.items()
    ]


def _differ(first: PublishedNumber, second: PublishedNumber) -> bool:
    """Whether two numbers are not the same; a ratio of two digits and a percentage may differ by rounding."""
    if first.unit == second.unit:
        return first.value != second.value
    if {first.unit, second.unit} != {"ratio", "%"}:
        return True
    percent = [one.value * (100 if one.unit == "ratio" else 1) for one in (first, second)]
    return abs(percent[0] - percent[1]) > _ROUNDING


def _published_number(one: PublishedNumber) -> dict[str, Any]:
    return {
        "benchmark": one.benchmark,
        "value": one.value,
        "unit": one.unit,
        "evaluator": one.evaluator,
        "resolution": one.resolution,
        "n_images": one.n_images,
        "source": one.source,
        "url": one.source_url,
        "confidence": one.confidence,
    }
