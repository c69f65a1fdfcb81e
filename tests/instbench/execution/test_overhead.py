from __future__ import annotations

import io

from instbench import defaults
from instbench.runs.store import RunFolder
from tests.instbench.execution.overhead import main, photograph


def test_the_measurement_of_the_harness_runs(tmp_path, capsys):
    options = [
        "--images",
        "8",
        "--size",
        "64",
        "--batch-size",
        "2",
        "--generating",
        "0.05",
        "--observing",
        "0.01",
    ]
    assert main([*options, "--image-store", "archives", "-o", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:6]] == ["generate", "observe", "plan", "score"]
    assert lines[-1].startswith("share outside the networks: ")
    record = RunFolder(tmp_path / "measured" / "run").read_run()
    assert record.counts["images"] == 8
    assert record.seconds_in_networks["generate"] >= 8 * 0.05


def test_a_made_up_picture_takes_the_disk_of_a_photograph():
    stream = io.BytesIO()
    photograph(512, 0).save(stream, format="PNG", compress_level=defaults.PNG_LEVEL)
    assert 1.2 < stream.tell() / 512**2 < 2.6
