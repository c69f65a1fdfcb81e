"""Run folders from strangers, with pipes, devices, folders and links in the places of files."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from instbench.cli.main import main
from tests.faults import driver
from tests.faults.driver import LIMIT_SECONDS
from tests.instbench.fakes import write_benchmark

pytestmark = pytest.mark.faults
PARTS = ("run.json", "layouts.jsonl", "images.jsonl", "results.json", "samples.npz", "instances.parquet")
PARTS += ("images/000000000011.png", "observations/detections.parquet")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS_LOG", str(folder / "log"))
        patch.setattr(driver.SlowGenerator, "pause", 0)
        patch.setattr(driver.SlowDetector, "pause", 0)
        driver.install()
        toy = write_benchmark(folder / "toy")
        assert main(["-q", "run", str(toy), "--model", "fake", "-o", str(folder / "run")]) == 0
        yield toy, folder / "run"


@pytest.fixture
def impatient() -> Iterator[None]:
    """What waits for a pipe for ever fails."""

    def ring(*_: object) -> None:
        pytest.fail("hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def commands(toy: Path, run: Path, folder: Path) -> list[list[str]]:
    return [
        ["score", str(run)],
        ["report", str(run)],
        ["compare", str(run), str(run), "--win-rate"],
        ["draw", "--from", f"{run}/000000000011", "-o", str(folder / "drawn")],
        ["merge", str(run), "-o", str(folder / "merged")],
        ["leaderboard", "check", str(run)],
        ["leaderboard", "add", str(run), "-o", str(folder / "board")],
        ["run", str(toy), "--model", "fake", "-o", str(run)],
    ]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "junk"])
@pytest.mark.parametrize("part", PARTS)
def test_no_plain_file_where_one_belongs(kind, part, sound, tmp_path, capsys, count, impatient):
    toy, whole = sound
    for number in range(len(commands(toy, whole, tmp_path))):
        folder = tmp_path / str(number)
        run = Path(shutil.copytree(whole, folder / "run"))
        path = run / part
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"\0\xff\x1b[2J" * 50)
        code = main(["-q", *commands(toy, run, folder)[number]])
        out, err = capsys.readouterr()
        assert code in (0, 1, 2)
        assert "Traceback" not in out + err
        assert "add -v before" not in err, err
        assert "\x1b" not in out + err
        assert code != 2 or err.splitlines()[-1].startswith("error: ")
        shutil.rmtree(folder)
        count("strange run folders")


@pytest.mark.parametrize("part", ["images", "observations", "images.jsonl", "report_files"])
def test_links_lead_nowhere(part, sound, tmp_path, capsys, count):
    toy, whole = sound
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = ("000000000011.png", "a.webp", "detections.parquet", ".tmp-a", "images.jsonl", "id_rsa")
    for name in precious:
        (outside / name).write_bytes(b"precious")
    path = run / part
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "images.jsonl" if "." in part else outside)
    for picture in run.glob("images/*"):
        if part != "images":
            picture.unlink()  # they would be made again, and noted
    (run / "report.html").write_text("<p>")
    calls = commands(toy, run, tmp_path)
    for call in [*calls, [*calls[-1], "--fresh"]]:
        assert main(["-q", *call]) in (0, 1, 2)
        assert "add -v before" not in capsys.readouterr().err
    assert {one.name for one in outside.iterdir()} == set(precious)
    assert all((outside / name).read_bytes() == b"precious" for name in precious)
    copied = [one for one in (tmp_path / "board").rglob("*") if one.is_file()]
    assert not any(one.read_bytes() == b"precious" for one in copied)
    count("links out of a run folder")
