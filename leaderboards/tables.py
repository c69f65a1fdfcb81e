"""Tables of boards: data frames, and the files that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leaderboards.boards import Board, Number, make_boards
from leaderboards.submissions import read_board, write_file

__all__ = ["FORMATS", "board_frame", "frame_csv", "numbers_frame", "write_tables"]

_NUMBER_COLUMNS: dict[str, str] = {
    "board": "object",
    "benchmark": "object",
    "version": "int64",
    "edition": "object",
    "images": "int64",
    "instances": "int64",
    "model": "object",
    "role": "object",
    "badge": "object",
    "submission": "object",
    "metric": "object",
    "value": "float64",
    "ci95_low": "float64",
    "ci95_high": "float64",
    "n_scored": "int64",
    "n_unscored": "int64",
    "best_rank": "Int64",
    "worst_rank": "Int64",
}


def numbers_frame(boards: Sequence[Board]) -> pd.DataFrame:
    """All numbers of all boards, one a row.

    Args:
        boards: From `make_boards`.

    Returns:
        Columns for board, run and metric; ``value`` and the ends of its 95 % interval (float64, NaN where there is
        none), what is behind it, and the ranks that the intervals allow (Int64, missing for those without rank).
    """
    rows: list[list[Any]] = []
    for board in boards:
        facts = [board.id, board.benchmark, board.version, board.edition, board.images, board.instances]
        for one in board.entries:
            run = [one.submission.results["model"], one.role, one.submission.badge, one.submission.id]
            for metric, number in one.numbers.items():
                ends = number.ci95 or (None, None)
                counts = [number.n_scored, number.n_unscored]
                ranks = one.ranks.get(metric, (None, None))
                rows.append([*facts, *run, metric, number.value, *ends, *counts, *ranks])
    return pd.DataFrame(rows, columns=list(_NUMBER_COLUMNS)).astype(_NUMBER_COLUMNS)


def board_frame(board: Board) -> pd.DataFrame:
    """A board as people read it.

    Args:
        board: One of `make_boards`.

    Returns:
        A row per run and a column per metric; cells are text, ``"0.510 [0.490, 0.530]"``, empty without a number.
    """
    rows = [
        [
            *(one.submission.results["model"], one.role, one.submission.badge, one.submission.id),
            *(_cell(one.numbers.get(name)) for name in board.metrics),
        ]
        for one in board.entries
    ]
    columns = ["model", "role", "badge", "submission", *board.metrics]
    return pd.DataFrame(sorted(rows), columns=columns, dtype=object)


def _cell(one: Number | None) -> str:
    if one is None or one.value is None:
        return ""
    interval = "" if one.ci95 is None else f" [{one.ci95[0]:.3f}, {one.ci95[1]:.3f}]"
    return f"{one.value:.3f}{interval}"


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV that spreadsheets show as it is: no text is taken for a formula."""
    safe = frame.set_axis([_spreadsheet_safe(str(name)) for name in frame.columns], axis=1)
    text: str = safe.map(_spreadsheet_safe).to_csv(index=False, lineterminator="\n")
    return text


def _spreadsheet_safe(cell: Any) -> Any:
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return cell


def _csv(board: Board) -> str:
    frame = board_frame(board)
    names = ["benchmark", "version", "edition", "images"]
    values = [board.benchmark, board.version, board.edition, board.images]
    facts = pd.DataFrame([values] * len(frame), columns=names)
    return frame_csv(pd.concat([facts, frame], axis=1))  # a metric may be called like a column


def _markdown(board: Board) -> str:
    def line(cells: list[str]) -> str:
        plain = [" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(cell.replace('<', '&lt;') for cell in plain)} |"

    frame = board_frame(board)
    title = " ".join(board.title.split()).replace("<", "&lt;")
    rule = "|---" * len(frame.columns) + "|"
    body = map(line, frame.to_numpy().tolist())
    return "\n".join([f"## {title}", "", line(list(frame.columns)), rule, *body]) + "\n"


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _latex(board: Board) -> str:
    def line(cells: list[str]) -> str:
        plain = [
            "".join(_TEX.get(character, character) for character in " ".join(cell.split())) for cell in cells
        ]
        return " & ".join(plain) + r" \\"

    frame = board_frame(board)
    columns = "llll" + "r" * len(board.metrics)
    comment = f"% {' '.join(board.title.split())}"
    body = [line(list(frame.columns)), r"\midrule", *map(line, frame.to_numpy().tolist())]
    begin = [comment, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Board], str]]] = {
    "csv": (".csv", _csv),
    "markdown": (".md", _markdown),
    "latex": (".tex", _latex),
}
"""Ending and writer by format."""


def write_tables(paths: Path | Sequence[Path], output: Path, table_format: str) -> list[Path]:
    """Writes one table per board.

    Args:
        paths: Boards, run folders or results files.
        output: Folder, made if missing.
        table_format: ``"csv"``, ``"markdown"`` or ``"latex"`` (needs booktabs).

    Returns:
        The files; their names are made from the boards' hashes.

    Raises:
        ValueError: If the format is unknown or a submission has a problem.
    """
    if table_format not in FORMATS:
        raise ValueError(f"unknown table format {table_format!r} (formats: {', '.join(FORMATS)})")
    ending, writer = FORMATS[table_format]
    boards = make_boards(read_board(paths))
    output.mkdir(parents=True, exist_ok=True)
    files = []
    for board in boards:
        file = output / f"board-{board.id}{ending}"
        write_file(file, writer(board).encode())
        files.append(file)
    return files
