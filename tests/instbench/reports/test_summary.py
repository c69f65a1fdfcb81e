from __future__ import annotations

from rich.console import Console

from instbench.reports.numbers import format_number
from instbench.reports.summary import (
    comparison_table,
    failures_table,
    format_value,
    results_table,
    slices_table,
)
from instbench.runs.records import FailuresRecord, MetricRecord, ResultsRecord, SliceRecord


def result(benchmark: str, **values: float | None) -> ResultsRecord:
    metrics = {
        name: MetricRecord(
            value=value, n_scored=0 if value is None else 4, n_unscored=1, reasons={"no image": 1}
        )
        for name, value in values.items()
    }
    return ResultsRecord(
        identity_sha256="x",
        benchmark=benchmark,
        benchmark_version=2,
        edition="strict",
        model="m",
        metrics=metrics,
    )


def text(table) -> str:
    console = Console(width=140, record=True, file=__import__("io").StringIO())
    console.print(table)
    return console.export_text()


def test_numbers_are_formatted_by_unit_and_null_is_a_dash():
    assert format_value(MetricRecord(value=0.12345, n_scored=1)) == "0.123"
    assert format_value(MetricRecord(value=12.345, n_scored=1, unit="distance")) == "12.35"
    assert format_value(MetricRecord(value=None, n_scored=0)) == "-"
    assert format_value(None) == "-"


def test_results_name_what_was_not_scored():
    shown = text(results_table([result("shapes-box", box_ap=0.5, fid=None)]))
    assert "shapes-box v2 strict" in shown
    assert "1 no image" in shown


def test_the_ceiling_stands_beside_every_benchmark():
    columns = {
        "floor": {"a": result("a", box_ap=0.01)},
        "model": {"a": result("a", box_ap=0.5), "b": result("b", mask_iou=0.6)},
        "ceiling": {"real": result("real", box_ap=0.99, mask_iou=0.98)},
    }
    lines = text(comparison_table(columns, ceiling="ceiling")).splitlines()
    [first] = [line for line in lines if "box_ap" in line]
    [second] = [line for line in lines if "mask_iou" in line]
    assert [part in first for part in ("0.010", "0.500", "0.990")] == [True] * 3
    assert [part in second for part in ("-", "0.600", "0.980")] == [True] * 3


def test_failures_and_slices_have_tables_of_their_own():
    plain = result("shapes-box", box_ap=0.5)
    assert failures_table([plain]) is slices_table([plain]) is None
    full = plain.model_copy(
        update={
            "failures": FailuresRecord(
                counts={"correct": 3, "missing": 1}, ap50=0.7, ap50_gains={"missing": 0.25}, n_extra=2
            ),
            "slices": {"found_rate": {"size": {"small": SliceRecord(value=0.25, n_scored=4)}}},
        }
    )
    shown = text(failures_table([plain, full]))
    assert "missing" in shown
    assert "25.0%" in shown
    assert "+0.250" in shown
    assert "nobody asked for" in shown
    shown = text(slices_table([full]))
    assert "small" in shown
    assert "0.250" in shown


def test_numbers_keep_their_digits() -> None:
    assert [format_number(one, "distance") for one in (0.0, 5.0, 10.8, 107.27, 1234.5, -0.0647)] == [
        "0.000",
        "5.000",
        "10.80",
        "107.3",
        "1234",
        "-0.06470",
    ]
    assert format_number(1.0, "fraction") == "1.000"
    assert format_number(0.5, "distance", signed=True) == "+0.5000"
