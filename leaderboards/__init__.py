"""Tables of runs, made from their ``results.json`` files alone."""

from leaderboards.tables import FORMATS, ResultRow, leaderboard_table, read_results, write_table

__all__ = ["FORMATS", "ResultRow", "leaderboard_table", "read_results", "write_table"]
