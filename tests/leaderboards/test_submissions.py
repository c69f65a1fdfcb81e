"""What is refused, in one line, and how the rest is filed."""

import json

import pytest

from instbench.cli.main import main
from leaderboards.submissions import add_submission, check_results, may_lack_numbers, read_board
from tests.leaderboards.submitting import number, results, write


def changed(path, value):
    content = results()
    target = content
    *parents, last = path.split("/")
    for key in parents:
        target = target[key]
    target[last] = value
    return content


def test_a_good_file_passes(tmp_path):
    assert check_results(write(tmp_path / "run", results())) == []


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("schema_version", 2, "schema_version"),
        ("schema_version", True, "schema_version"),
        ("edition", "best", "edition"),
        ("benchmark_version", 0, "benchmark_version"),
        ("benchmark", "", "benchmark"),
        ("model", None, "model"),
        ("identity_sha256", "a" * 63, "identity_sha256"),
        ("identity_sha256", "A" * 64, "identity_sha256"),
        ("evaluators/detector/sha256", {"model": "../x"}, "evaluators.detector.sha256.model"),
        ("evaluators/detector", {}, "evaluators.detector.sha256"),
        ("counts", None, "counts"),
        ("counts/images_missing", 5, "counts.images_missing"),
        ("counts/images", 4.5, "counts.images"),
        ("metrics", {}, "metrics"),
        ("metrics/box_ap", 1, "metrics.box_ap"),
        ("metrics/box_ap/value", 1.2, "metrics.box_ap.value"),
        ("metrics/box_ap/value", None, "metrics.box_ap.ci95"),
        ("metrics/box_ap/ci95", [0.6, 0.7], "metrics.box_ap.ci95"),
        ("metrics/fid/value", 10**400, "metrics.fid.value"),
        ("metrics/fid/n_scored", 10**400, "metrics.fid.n_scored"),
        ("model", "\ud800", "(root)"),
        ("model", "\x1b[2Jmine", "model"),
        ("benchmark", "shapes\nbox", "benchmark"),
        ("metrics/box_ap/ci95", [0.6], "metrics.box_ap.ci95"),
        ("metrics/box_ap/n_scored", 9, "metrics.box_ap.n_scored"),
        ("metrics/box_ap/n_scored", -1, "metrics.box_ap.n_scored"),
        ("metrics/box_ap/reasons", {"why not": 1}, "metrics.box_ap.reasons"),
        ("metrics/box_ap/unit", "furlong", "metrics.box_ap.unit"),
        ("metrics/box_ap/higher_is_better", 1, "metrics.box_ap.higher_is_better"),
        ("metrics/fid/n_scored", 10, "metrics.fid.n_scored"),
        ("metrics_asked", ["box_ap", "fid", "kid"], "metrics.kid"),
        ("metrics_asked", "box_ap", "metrics_asked"),
        ("metrics_asked", [1], "metrics_asked"),
    ],
)
def test_each_fault_is_one_line_with_its_field(tmp_path, path, value, field):
    folder = write(tmp_path / "run", changed(path, value))
    lines = check_results(folder)
    assert any(line.startswith(f"{folder / 'results.json'}: field {field}: ") for line in lines), lines
    assert all("\n" not in line for line in lines)
    with pytest.raises(ValueError, match="field"):
        add_submission(folder, tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_older_files_do_not_say_which_numbers_were_asked_for(tmp_path, capsys):
    old = write(tmp_path / "old", results())
    new = write(tmp_path / "new", results(metrics_asked=["box_ap", "fid"]))
    assert (check_results(old), check_results(new)) == ([], [])
    assert (may_lack_numbers(old), may_lack_numbers(new / "results.json")) == (True, False)
    assert main(["leaderboard", "check", str(old), str(new)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{old}: ok; unknown whether numbers of the benchmark are missing")
    assert second == f"{new}: ok"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_number_is_refused(tmp_path, text):
    folder = write(tmp_path / "run", results())
    file = folder / "results.json"
    file.write_text(file.read_text().replace("0.5", text))
    (line,) = check_results(folder)
    assert text in line


@pytest.mark.parametrize("text", ["{", "[]", "1e400", "[" * 100_000, "\udcff"])
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "results.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert len(check_results(file)) == 1
    assert len(check_results(tmp_path / "nothing.json")) == 1


def test_huge_numbers_are_not_finite(tmp_path):
    folder = write(tmp_path / "run", results())
    file = folder / "results.json"
    file.write_text(file.read_text().replace("0.5", "1e999"))
    assert "metrics.box_ap.value: must be a finite number" in check_results(folder)[0]


def test_filed_names_come_from_the_hash(tmp_path):
    run = write(tmp_path / "run", results("../../evil", benchmark="../x-box"))
    (run / "report.html").write_text("report")
    board = tmp_path / "board"
    folder = add_submission(run, board)
    assert add_submission(run, board, badge="reproduced here") == folder
    assert sorted(one.name for one in folder.iterdir()) == ["report.html", "results.json", "submission.json"]
    assert [one.name for one in board.iterdir()] == [folder.name]
    (one,) = read_board(board)
    assert (one.badge, one.report) == ("reproduced here", folder / "report.html")
    assert one.id == folder.name
    assert folder.name.isalnum()


def test_a_file_changed_after_filing_is_refused(tmp_path):
    folder = add_submission(write(tmp_path / "run", results()), tmp_path / "board")
    content = results(metrics={"box_ap": number(0.9)})
    (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was filed"):
        read_board(tmp_path / "board")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no submission"):
        read_board(tmp_path / "empty")
