"""Leaderboards, made from ``results.json`` files alone: checking, filing, tables, a static site."""

from leaderboards.boards import make_boards, write_tables
from leaderboards.site import build_site
from leaderboards.submissions import add_submission, check_results, read_board

__all__ = ["add_submission", "build_site", "check_results", "make_boards", "read_board", "write_tables"]
