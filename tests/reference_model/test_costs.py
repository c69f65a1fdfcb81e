"""The measured costs of an image, on a tiny pipeline, and the formula of the documents."""

from __future__ import annotations

import pytest

from reference_model import costs
from reference_model.costs import Cost, fit_line, measure, rows_per_image, table

from .tiny import tiny_pipeline


def test_measured_rows_are_those_of_the_formula(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    for instances, share in ((1, 0.0), (3, 0.5)):
        measured = measure(instances, share, [4, 8], images=2, folder=tmp_path)
        assert [one.rows for one in measured] == [rows_per_image(instances, steps, share) for steps in (4, 8)]
        assert all(one.cpu_seconds > 0 and one.peak_mib > 10 for one in measured)


def test_rows_by_hand():
    assert rows_per_image(8, 50, 0.0) == 102
    assert rows_per_image(8, 50, 0.36) == 102 + 8 * 37
    assert rows_per_image(8, 50, 0.36, guided=False) == 51 + 8 * 19
    assert rows_per_image(30, 2, 0.36) == 6  # a share of less than one step is none


def cost(rows: float, seconds: float) -> Cost:
    return Cost(1, 0.36, 25, rows, 1, seconds * 1.5, seconds, 900.0)


def test_a_line_is_found_again():
    line = fit_line([cost(rows, 0.2 + 0.01 * rows) for rows in (20, 60, 300)])
    assert (line.fixed, line.per_row) == pytest.approx((0.2, 0.01))
    assert line.worst == pytest.approx(0.0, abs=1e-9)
    lines = table([cost(20, 0.4), cost(60, 0.8)])
    assert lines[2] == "| 1 | 0.36 | 25 | 20 | 0.40 | 0.60 | 900 |"
    assert lines[-1] == "CPU seconds per image = 0.200 + 0.0100 x rows, off by at most 0%"


def test_bad_options_are_refused(capsys):
    for options in (["--mis", "1"], ["--instances", "0"]):
        with pytest.raises(SystemExit) as stopped:
            costs.main(options)
        assert stopped.value.code == 2
