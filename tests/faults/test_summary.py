"""The closing lines of `make test-faults` say what happened: losses and failures turn it red and are not hidden."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.driver import LIMIT_SECONDS

pytestmark = pytest.mark.faults

CASES = """
import pytest

def test_sound(count):
    count("kill -9")
    count("kill -9")

@pytest.mark.skipif(True, reason="no right to mount")
def test_skipped(count):
    pass
"""
LOSS = """
def test_loss(count):
    count("power cuts")
    count("lost")
    assert False

def test_crash(count):
    raise RuntimeError
"""


@pytest.mark.parametrize("loss", [False, True])
def test_losses_and_failures_are_printed_and_turn_it_red(loss, tmp_path, count):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(CASES + LOSS * loss)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if loss:
        assert "faults: 3 cases (2 kill -9, 1 power cuts); lost: 1, see the 2 failures" in done.stdout
    else:
        assert "faults: 2 cases (2 kill -9); lost: nothing" in done.stdout
    assert "faults: not tried here: test_skipped" in done.stdout
    assert done.returncode == int(loss)
    count("closing lines")
