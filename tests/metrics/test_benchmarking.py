"""The benchmark on a set of a second: both sides agree, and the report names what it measured."""

from __future__ import annotations

import re

import pytest

from metrics.benchmarking import compare_all, main, naive_points_in_mask
from tests.metrics.builders import annotation, detection, truth


def test_both_sides_agree() -> None:
    rows = compare_all(images=6, per_image=12, mask_images=1, repeats=1, width=4)
    assert [row.name.split(",")[0] for row in rows] == ["box AP", "mask AP", "points in mask", "FID"]
    for row in rows:
        assert row.difference < 1e-6, row.name
        assert min(row.seconds, row.reference_seconds) > 0


def test_the_reference_takes_masks_in_turn() -> None:
    gt = truth(annotation(1, (2, 2, 10, 10)), annotation(2, (4, 2, 10, 10)), annotation(3, (30, 20, 9, 9)))
    found = [detection((2, 2, 10, 10)), detection((20, 20, 5, 5))]
    # The first takes its own mask; the second gets the other one at IoU 0; nothing is left for the third.
    assert naive_points_in_mask(gt, found) == pytest.approx(0.5)


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "4", "--per-image", "5", "--mask-images", "1", "--repeats", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"box AP, 4 images, 20 boxes .* \d+\.\dx", printed)
    with pytest.raises(SystemExit):
        main(["--images", "0"])
