from __future__ import annotations

from pathlib import Path

from instbench.execution import slices
from instbench.runs.ordering import SLICES, bin_order, in_order
from instbench.runs.records import MetricRecord, ResultsRecord, SliceRecord
from instbench.runs.store import RunFolder


def results() -> ResultsRecord:
    metrics = {name: MetricRecord(value=0.5, n_scored=1) for name in ("mask_ap", "box_ap", "fid")}
    bins = {label: SliceRecord(value=0.5, n_scored=1) for label in ("7 or more", "1", "4-6", "2-3")}
    sizes = {label: SliceRecord(value=0.5, n_scored=1) for label in ("large", "small")}
    return ResultsRecord(
        identity_sha256="0" * 64,
        benchmark="b",
        benchmark_version=1,
        edition="strict",
        model="m",
        metrics=metrics,
        metrics_asked=["mask_ap", "box_ap", "fid"],
        slices={"found_rate": {"instances_in_image": bins, "size": sizes}},
    )


def test_a_file_sorts_by_letter_and_reading_puts_right(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_results(results())
    assert folder.results_json.read_text().index("box_ap") < folder.results_json.read_text().index("mask_ap")
    found = folder.read_results()
    assert list(found.metrics) == ["mask_ap", "box_ap", "fid"]
    assert list(found.slices["found_rate"]) == ["size", "instances_in_image"]
    assert list(found.slices["found_rate"]["instances_in_image"]) == ["1", "2-3", "4-6", "7 or more"]
    assert list(found.slices["found_rate"]["size"]) == ["small", "large"]
    assert found == results() == in_order(found)


def test_bins_go_from_little_to_much() -> None:
    overlaps = [name for _, name in slices._OVERLAPS] + ["above 0.5"]
    assert sorted(set(overlaps), key=bin_order) == overlaps
    counts = [name for _, name in slices._COUNTS] + ["7 or more"]
    assert sorted(set(counts), key=bin_order) == counts
    assert sorted(["category 10", "category 9", "cat"], key=bin_order) == ["cat", "category 9", "category 10"]
    assert set(SLICES) >= {"size", "position", "asked_as"}
