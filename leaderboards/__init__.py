"""Leaderboards, made from ``results.json`` files alone: checking, filing, tables, a static site."""

from leaderboards.boards import make_boards
from leaderboards.site import build_site
from leaderboards.submissions import add_submission, check_results, read_board
from leaderboards.tables import board_frame, numbers_frame, write_tables

__all__ = [
    "add_submission",
    "board_frame",
    "build_site",
    "check_results",
    "make_boards",
    "numbers_frame",
    "read_board",
    "write_tables",
]
