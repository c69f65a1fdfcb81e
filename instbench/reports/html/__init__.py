"""Reports of runs as HTML pages that open from a file, without a server or a network."""

from instbench.reports.html.build import build_report
from instbench.reports.html.comparison import build_comparison

__all__ = ["build_comparison", "build_report"]
