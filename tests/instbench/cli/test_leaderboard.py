"""`instbench leaderboard`."""

from instbench.cli.main import main
from tests.leaderboards.submitting import results, write


def test_check_add_and_build(tmp_path, capsys):
    run, board, site = write(tmp_path / "run", results()), str(tmp_path / "board"), tmp_path / "site"
    assert main(["leaderboard", "check", str(run)]) == 0
    assert main(["leaderboard", "add", str(run), "-o", board, "--reproduced"]) == 0
    assert main(["leaderboard", "build", board, "-o", str(site)]) == 0
    assert "reproduced here" in (site / "measured.csv").read_text()
    for table_format, ending in (("csv", "csv"), ("markdown", "md"), ("latex", "tex")):
        assert main(["leaderboard", "build", board, "-o", str(site), "--format", table_format]) == 0
        assert len(list(site.glob(f"board-*.{ending}"))) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_every_problem_is_said_and_nothing_is_filed(tmp_path, capsys):
    good = write(tmp_path / "good", results())
    bad = write(tmp_path / "bad", results(edition="x", identity_sha256="y"))
    assert main(["leaderboard", "add", str(good), str(bad), "-o", str(tmp_path / "board")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("field ")[1].split(":")[0] for line in lines[:2]] == ["edition", "identity_sha256"]
    assert lines[2].startswith("error: 2 problems")
    assert not (tmp_path / "board").exists()
    assert main(["leaderboard", "build", str(tmp_path / "none"), "-o", str(tmp_path / "site")]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err
    assert main(["leaderboard", "check", str(tmp_path / "none")]) == 2
    assert "1 problem in 1 submission;" in capsys.readouterr().err
