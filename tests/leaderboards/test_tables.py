"""Tables of boards, as data frames and as files."""

import csv
import io

import pandas as pd
import pytest

from leaderboards.boards import make_boards
from leaderboards.submissions import read_board
from leaderboards.tables import board_frame, frame_csv, numbers_frame, write_tables
from tests.leaderboards.submitting import number, results, write


@pytest.fixture
def boards(tmp_path):
    fid = {**number(30.0, [29.0, 31.0], 4), "unit": "distance", "higher_is_better": False}
    unscored = {**number(None), "n_scored": 0, "n_unscored": 10, "reasons": {"no image": 10}}
    runs = {
        "best": results("best", metrics={"box_ap": number(0.8, [0.78, 0.82]), "fid": fid}),
        "floor": results("text-only", metrics={"box_ap": number(0.1)}),
        "paper": results("other", edition="paper", metrics={"box_ap": unscored}),
    }
    return make_boards(read_board([write(tmp_path / name, content) for name, content in runs.items()]))


def test_numbers_are_one_a_row_and_keep_their_types(boards):
    frame = numbers_frame(boards)
    assert list(frame["edition"]) == ["strict", "strict", "strict", "paper"]
    assert frame["value"].dtype == "float64"
    assert frame["best_rank"].dtype == "Int64"
    by_number = frame.set_index(["model", "metric"])
    best = by_number.loc[("best", "box_ap")]
    assert (best["value"], best["ci95_low"], best["ci95_high"], best["best_rank"]) == (0.8, 0.78, 0.82, 1)
    assert by_number.loc[("best", "fid"), "n_scored"] == 4
    floor = by_number.loc[("text-only", "box_ap")]
    assert (floor["role"], floor["value"]) == ("floor", 0.1)
    # No interval and no rank are missing, not 0.
    assert pd.isna(floor["ci95_low"])
    assert pd.isna(floor["best_rank"])
    assert pd.isna(by_number.loc[("other", "box_ap"), "value"])


def test_a_frame_of_no_boards_has_the_same_columns(boards):
    empty = numbers_frame([])
    assert len(empty) == 0
    assert (empty.dtypes == numbers_frame(boards).dtypes).all()


def test_csv_keeps_every_number_and_leaves_missing_ones_empty(boards):
    rows = list(csv.DictReader(io.StringIO(frame_csv(numbers_frame(boards)))))
    found = {(row["model"], row["metric"]): (row["value"], row["worst_rank"]) for row in rows}
    assert found == {
        ("best", "box_ap"): ("0.8", "1"),
        ("best", "fid"): ("30.0", "1"),
        ("text-only", "box_ap"): ("0.1", ""),
        ("other", "box_ap"): ("", ""),
    }
    safe = frame_csv(pd.DataFrame({"=1+1": ["@x", "-1", "plain"], "n": [-1, 2, 3]}))
    assert safe == "'=1+1,n\n'@x,-1\n'-1,2\nplain,3\n"


def test_a_board_is_a_row_per_run_and_a_column_per_metric(boards):
    frame = board_frame(boards[0])
    assert list(frame.columns) == ["model", "role", "badge", "submission", "box_ap", "fid"]
    assert frame.set_index("model")["box_ap"].to_dict() == {
        "best": "0.800 [0.780, 0.820]",
        "text-only": "0.100",
    }
    assert frame.set_index("model").loc["text-only", "fid"] == ""


@pytest.mark.parametrize("table_format", ["csv", "markdown", "latex"])
def test_a_metric_may_be_called_like_a_column(tmp_path, table_format):
    run = write(tmp_path / "run", results("mine", metrics={"model": number(0.5, [0.4, 0.6])}))
    (file,) = write_tables([run], tmp_path / "out", table_format)
    assert "0.500 [0.400, 0.600]" in file.read_text(encoding="utf-8")


def test_tables_are_written_under_our_own_names(tmp_path):
    name = "=a|b<i>_&"
    run = write(tmp_path / "run", results(name, benchmark="../../x-box"))
    (file,) = write_tables([run], tmp_path / "out", "csv")
    assert file.parent == tmp_path / "out"
    (row,) = csv.DictReader(file.open(encoding="utf-8"))
    assert row["model"] == f"'{name}"
    assert row["box_ap"] == "0.500 [0.400, 0.600]"
    (markdown,) = write_tables([run], tmp_path / "out", "markdown")
    assert "=a\\|b&lt;i>_&" in markdown.read_text()
    (latex,) = write_tables([run], tmp_path / "out", "latex")
    assert r"=a|b<i>\_\&" in latex.read_text()
    with pytest.raises(ValueError, match="unknown table format"):
        write_tables([run], tmp_path / "out", "docx")
