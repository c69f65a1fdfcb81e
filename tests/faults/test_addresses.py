"""Runs at an address, killed and gone on with from the address alone."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.driver import wait_until
from tests.faults.test_interruptions import Runner

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("machine", ["the same", "another"])
@pytest.mark.parametrize("store", ["files", "archives"])
def test_killed_at_an_address_and_resumed(tmp_path, monkeypatch, count, store, machine):
    runner = Runner(tmp_path)
    where = ["-o", f"file://{tmp_path}/at"]
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "machine"))
    process = runner.start("at", *where, "--image-store", store, hold=8 if store == "files" else 0)
    runner.wait_for(process, 8)
    if store == "files":
        wait_until(lambda: len(runner.finished("at")) >= 5)
    time.sleep(random.Random(store).random() * 0.04)
    process.kill()
    process.communicate()
    made = set(runner.log.read_text().splitlines())
    (staging,) = (tmp_path / "machine" / "staging").iterdir()
    finished = runner.finished("at") | (
        runner.finished(str(staging / "run")) if machine == "the same" else set()
    )
    if machine == "another":
        monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "other-machine"))
    runner.run("at", *where)
    again = made & set(runner.log.read_text().splitlines())
    count("kill -9 at an address")
    lost = sorted(again & finished)
    for _ in lost:
        count("lost")
    assert lost == []
    assert (tmp_path / "at" / "results.json").read_bytes() == runner.expected
    assert not [path for path in (tmp_path / "at").rglob(".*") if path.is_file()]
    assert len(runner.finished("at")) == 12
