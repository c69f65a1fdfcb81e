"""Fetching public data: download with resume, checksums, safe unpacking."""

from instbench.datasets.fetching.fetch import FetchReport, fetch_dataset

__all__ = ["FetchReport", "fetch_dataset"]
