from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from instbench.cli.main import main
from instbench.errors import InputError
from instbench.reports.html import build_comparison
from instbench.statistics import comparison
from tests.instbench.reports.html.synthetic import make_run
from tests.instbench.reports.html.test_build import data_of


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return make_run(tmp_path / "a", model="good"), make_run(tmp_path / "b", model="worse", shift=0.2)


def test_two_views_of_every_layout(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = build_comparison(*runs, tmp_path / "both.html")
    found = data_of(page)
    assert found["labels"] == ["good", "worse"]
    assert [len(one["views"]) for one in found["images"]] == [2] * 6
    assert [view["quality"] for view in found["images"][0]["views"]] == [0.9, 0.7]


def test_differences_are_the_second_less_the_first(runs: tuple[Path, Path], tmp_path: Path) -> None:
    text = build_comparison(*runs, tmp_path / "both.html").read_text(encoding="utf-8")
    # 8 of 12 objects are found well, and those alone lose 0.2.
    assert re.search(r"<code>box_iou</code>.{0,300}?>-0\.133<", text)
    # Images 2 and 5 have one misplaced and two good objects: worse too.
    assert "worse is better on 0, good on 6, equal on 0." in text
    assert "generator.kind" in text


def test_paired_intervals_stand_beside_the_difference(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build_comparison(*runs, tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "Differences without intervals: " in plain  # these folders hold no samples
    difference = comparison.Difference(-0.133, (-0.2, -0.05), 0.01, 0.02)
    estimate = comparison.Estimate(0.5, None, 12)
    row = comparison.ComparisonRow(
        "synthetic-box",
        "box_iou",
        "fraction",
        True,
        None,
        None,
        (estimate,) * 2,
        (None, difference),
        ("a", "b"),
    )
    sliced = replace(
        row,
        slice="size",
        bin="large",
        differences=(None, replace(difference, ci95=(-0.4, -0.1), p_adjusted=0.04)),
    )
    found = comparison.Comparison(("good", "worse"), 0, "synthetic-box", 1, "strict", 6, (0,), (row, sliced))
    monkeypatch.setattr(comparison, "compare_runs", lambda *_, **__: found)
    text = build_comparison(*runs, tmp_path / "both.html").read_text(encoding="utf-8")
    assert re.search(r">-0\.133<.{0,40}>-0\.200 to -0\.050<.{0,40}>0\.020<", text)
    assert re.search(r">large<.{0,900}>-0\.400 to -0\.100<.{0,40}>0\.040<", text)


@pytest.mark.parametrize(
    ("identity", "word"),
    [
        ({"benchmark": "other"}, "benchmark (synthetic-box and other)"),
        ({"edition": "paper"}, "edition (strict and paper)"),
        ({"layouts_sha256": "ef" * 32}, "layouts_sha256"),
        ({"evaluators": {"detector": {"kind": "x"}}}, "evaluators.detector.kind"),
    ],
)
def test_other_things_are_refused_by_name(tmp_path: Path, identity: dict[str, object], word: str) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", identity=identity)
    with pytest.raises(InputError, match=re.escape(word)):
        build_comparison(first, second, tmp_path / "both.html")
    assert not (tmp_path / "both.html").exists()


def test_command_line(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *map(str, runs)]) == 2
    assert "-o FILE is missing" in capsys.readouterr().err
    assert main(["report", *map(str, runs), "-o", str(tmp_path / "both.html")]) == 0
    assert (tmp_path / "both.html").is_file()
