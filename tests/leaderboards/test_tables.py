"""Leaderboard tables read results files and nothing else."""

import io
import json

import pandas as pd
import pytest

from leaderboards import leaderboard_table, read_results, write_table


def write_results(folder, model, *, identity="a" * 64, version=1, edition="strict", **values):
    folder.mkdir(parents=True)
    metrics = {
        name: {
            "value": value,
            "n_scored": 0 if value is None else 5,
            "n_unscored": 5 if value is None else 0,
            "unit": "fraction",
            "higher_is_better": name != "fid",
        }
        for name, value in values.items()
    }
    content = {
        "schema_version": 1,
        "identity_sha256": identity,
        "benchmark": "shapes-box",
        "benchmark_version": version,
        "edition": edition,
        "model": model,
        "metrics": metrics,
    }
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def test_best_model_comes_first_and_null_stays_empty(tmp_path):
    runs = [
        write_results(tmp_path / "a", "weak", box_ap=0.2, fid=90.0),
        write_results(tmp_path / "b", "strong", box_ap=0.6, fid=None),
    ]
    frame = leaderboard_table(read_results(runs))
    assert list(frame.index) == ["strong", "weak"]
    assert frame.loc["strong"].isna().tolist() == [False, True]
    assert write_table(frame, "markdown").splitlines()[2] == "| strong | 0.600 |  |"
    again = pd.read_csv(io.StringIO(write_table(frame, "csv")), index_col="model")
    pd.testing.assert_frame_equal(again, frame)


def test_lower_is_better_sorts_the_other_way(tmp_path):
    runs = [write_results(tmp_path / name, name, fid=value) for name, value in (("far", 9.0), ("near", 2.0))]
    assert list(leaderboard_table(read_results(runs)).index) == ["near", "far"]


def test_versions_do_not_share_a_column(tmp_path):
    runs = [
        write_results(tmp_path / "a", "m", box_ap=0.2),
        write_results(tmp_path / "b", "n", version=2, box_ap=0.3),
    ]
    frame = leaderboard_table(read_results(runs))
    assert list(frame.columns) == ["shapes-box v1 strict: box_ap", "shapes-box v2 strict: box_ap"]
    assert frame.isna().sum().sum() == 2


def test_editions_do_not_share_a_table(tmp_path):
    runs = [
        write_results(tmp_path / "a", "m", box_ap=0.2),
        write_results(tmp_path / "b", "n", edition="paper", box_ap=0.3),
    ]
    with pytest.raises(ValueError, match=r"different editions: paper \(shapes-box\) and strict"):
        leaderboard_table(read_results(runs))
    assert list(leaderboard_table(read_results(runs[1:])).columns) == ["shapes-box v1 paper: box_ap"]


def test_two_runs_under_one_name_are_refused(tmp_path):
    runs = [
        write_results(tmp_path / "a", "m", box_ap=0.2),
        write_results(tmp_path / "b", "m", identity="b" * 64, box_ap=0.3),
    ]
    with pytest.raises(ValueError, match="two runs of shapes-box v1 strict: box_ap"):
        leaderboard_table(read_results(runs))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "unreadable"),
        ('{"schema_version": 9}', "schema_version"),
        ('{"schema_version": 1, "metrics": {"box_ap": {}}}', "value"),
        ('{"schema_version": 1, "metrics": {"box_ap": {"value": NaN}}}', "not a finite number"),
    ],
)
def test_bad_files_are_named(tmp_path, text, field):
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=field) as caught:
        read_results([file])
    assert str(file) in str(caught.value)
    with pytest.raises(ValueError, match="unknown table format"):
        write_table(pd.DataFrame(), "docx")
