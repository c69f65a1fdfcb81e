from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from instbench.errors import InputError
from instbench.runs.lock import LOCK_NAME, LockOwner, RunLock, read_owner


def write(folder, owner: LockOwner) -> None:
    (folder / LOCK_NAME).write_text(json.dumps(asdict(owner)))


def test_the_second_is_refused_with_the_owner_named(tmp_path):
    with RunLock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on"), RunLock(tmp_path):
        pass
    assert not (tmp_path / LOCK_NAME).exists()


def test_another_process_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from instbench.runs.lock import RunLock\n"
        "try:\n  RunLock(Path(sys.argv[1])).__enter__()\nexcept ValueError as error:\n  print(error)"
    )
    with RunLock(tmp_path):
        answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in answer.stdout


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    write(tmp_path, replace(LockOwner.current(), pid=child.pid))
    with RunLock(tmp_path):
        owner = read_owner(tmp_path / LOCK_NAME)
        assert owner is not None
        assert owner.pid == os.getpid()


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"process_start": "1"}])
def test_a_lock_from_before_a_reboot_or_of_a_reused_pid_is_stale(tmp_path, change):
    owner = LockOwner.current()
    if not owner.boot_id or not owner.process_start:
        pytest.skip("the system does not tell boots apart")
    write(tmp_path, replace(owner, **change))
    with RunLock(tmp_path):
        pass


def test_a_lock_of_another_host_is_never_stale(tmp_path):
    write(tmp_path, replace(LockOwner.current(), host=socket.gethostname() + "-other", boot_id="x"))
    with pytest.raises(InputError, match="delete"), RunLock(tmp_path):
        pass


def test_a_torn_lock_is_taken_over(tmp_path):
    (tmp_path / LOCK_NAME).write_text('{"pid": 1')
    with RunLock(tmp_path):
        pass


def test_the_lock_of_a_successor_is_left_alone(tmp_path):
    with RunLock(tmp_path):
        write(tmp_path, replace(LockOwner.current(), since="later"))
    assert (tmp_path / LOCK_NAME).exists()


def test_an_owner_in_another_container_is_told_by_what_the_system_holds(tmp_path):
    # Same host name, same boot, and a process id that is somebody else's here.
    other = replace(LockOwner.current(), pid=1, process_start="1", space="pid:[1]")
    if not other.boot_id:
        pytest.skip("the system does not tell boots apart")
    write(tmp_path, other)
    with (tmp_path / LOCK_NAME).open() as held:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(InputError, match=r"in use by process 1 .* if that process is gone"),
            RunLock(tmp_path),
        ):
            pass
    with RunLock(tmp_path):
        owner = read_owner(tmp_path / LOCK_NAME)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_lock_without_a_container_is_read(tmp_path):
    fields = asdict(LockOwner.current())
    del fields["space"]
    (tmp_path / LOCK_NAME).write_text(json.dumps(fields))
    with pytest.raises(InputError, match=f"process {os.getpid()}"), RunLock(tmp_path):
        pass
