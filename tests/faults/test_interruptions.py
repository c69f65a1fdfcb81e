"""Runs that are killed, stopped, filled up or doubled end with the same numbers and make nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instbench.runs.images import UNREADABLE
from instbench.runs.store import RunFolder
from tests.faults.driver import LIMIT_SECONDS, wait_until
from tests.instbench.fakes import write_benchmark, write_coco

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = 12
DETECTIONS = IMAGES // 3
POINTS = sorted(random.Random(6).sample(range(1, IMAGES + DETECTIONS), 3))


class Runner:
    """Starts the command line of `tests.faults.driver` on one benchmark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_coco(folder / "toy", IMAGES)
        self.benchmark = write_benchmark(
            folder / "toy", metrics=[{"name": one} for one in ("box_ap50", "mask_iou")]
        )
        self.log = folder / "log"
        self.run("whole")
        self.expected = (folder / "whole" / "results.json").read_bytes()

    def start(self, name: str, *extra: str, hold: int = 0) -> subprocess.Popen[str]:
        """Starts a run; at line `hold` of its log, if given, it waits to be let on."""
        self.log.write_text("")
        self._go.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.faults.driver", "-q", "run", str(self.benchmark)]
        command += ["--model", "fake", "--batch-size", "2", "-o", str(self.folder / name), *extra]
        environment = {
            **os.environ,
            "FAULTS_LOG": str(self.log),
            "PYTHONPATH": str(ROOT),
            "FAULTS_HOLD": str(hold),
        }
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def run(self, name: str, *extra: str, code: int = 0) -> str:
        process = self.start(name, *extra)
        error = process.communicate(timeout=LIMIT_SECONDS)[1]
        assert process.returncode == code, error
        return error

    @property
    def _go(self) -> Path:
        return self.log.with_name(f"{self.log.name}.go")

    def let_on(self) -> None:
        """Lets a run on that waits."""
        self._go.touch()

    def wait_for(self, process: subprocess.Popen[str], lines: int) -> None:
        wait_until(lambda: self._lines() >= lines or process.poll() is not None)
        assert self._lines() >= lines, process.communicate()[1]

    def _lines(self) -> int:
        return len(self.log.read_text().splitlines())

    def finished(self, name: str) -> set[str]:
        if not (self.folder / name / "run.json").exists():
            return set()
        store = RunFolder(self.folder / name).pictures
        done = set()
        for key in store.keys():  # noqa: SIM118 - no mapping
            try:
                store.open(key)
            except UNREADABLE:
                # A torn file under a final name would be a loss; the end of an archive may be torn.
                assert store.kind == "archives", key
            else:
                done.add(key)
        return done

    def resume(self, name: str) -> list[str]:
        """Runs again; the numbers must be those of the undisturbed run, and no finished image made again."""
        before = self.finished(name)
        self.run(name)
        again = before & set(self.log.read_text().splitlines())
        same = (self.folder / name / "results.json").read_bytes() == self.expected
        left = list((self.folder / name).rglob(".tmp-*"))
        return [*sorted(again), *([] if same else ["results.json"]), *map(str, left)]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("store", ["files", "archives"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_and_resumed(runner, count, point, store):
    name = f"killed-{point}-{store}"
    process = runner.start(name, "--image-store", store)
    runner.wait_for(process, point)
    time.sleep(random.Random(point).random() * 0.04)
    process.kill()
    process.communicate()
    lost = runner.resume(name)
    count("kill -9")
    for _ in lost:
        count("lost")
    assert lost == []


def test_interrupted_and_resumed(runner, count):
    process = runner.start("stopped", hold=5)
    runner.wait_for(process, 5)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=LIMIT_SECONDS)[1]
    assert process.returncode == 130
    assert error.strip() == "interrupted; run the same command again to continue"
    assert len(runner.finished("stopped")) >= 3
    assert runner.resume("stopped") == []
    count("Ctrl-C")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_by_a_cluster_and_resumed(runner, count, number):
    name = f"terminated-{number}"
    process = runner.start(name)
    runner.wait_for(process, 5)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert error.strip() == "terminated; run the same command again to continue"
    assert not (runner.folder / name / ".lock").exists()
    assert len(runner.finished(name)) >= 3
    assert runner.resume(name) == []
    count("SIGTERM and SIGHUP")


def test_impatient_fingers_on_ctrl_c(runner, count):
    process = runner.start("impatient")
    runner.wait_for(process, 5)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    error = process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT)  # the shell calls both 130
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 1, error
    assert runner.resume("impatient") == []
    count("Ctrl-C, again and again")


@pytest.mark.parametrize("store", ["files", "archives"])
def test_a_full_disk_is_one_line_and_resumed(runner, count, store):
    name = f"full-{store}"
    target = runner.folder / name
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=56k", "tmpfs", str(target)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        error = runner.run(name, "--image-store", store, code=2)
        assert error.count("\n") == 1
        assert "no space left" in error
        subprocess.run(["mount", "-o", "remount,size=8m", str(target)], check=True)  # noqa: S607
        assert runner.resume(name) == []
    finally:
        subprocess.run(["umount", str(target)], check=True)  # noqa: S607
    count("full disk")


def test_the_second_process_and_another_identity_are_refused(runner, count):
    process = runner.start("shared", hold=1)  # it must not end before the second comes
    runner.wait_for(process, 1)
    log, runner.log = runner.log, runner.folder / "second"
    error = runner.run("shared", code=2)
    runner.log = log
    runner.let_on()
    assert error.count("\n") == 1
    assert f"in use by process {process.pid}" in error
    assert process.wait(timeout=LIMIT_SECONDS) == 0
    count("two processes")
    error = runner.run("shared", "--seed", "1", code=2)
    assert error.count("\n") == 1
    assert "seed (0 there, 1 now)" in error
    count("other identity")
    assert runner.resume("shared") == []
