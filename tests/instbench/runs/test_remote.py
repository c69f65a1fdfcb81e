"""Addresses: how they are shown, what tells a file from its next version, and one writer at a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from instbench.errors import InputError
from instbench.runs import remote
from instbench.runs.lock import LOCK_NAME
from instbench.runs.remote import Target, TargetLock, shown


@pytest.fixture
def url(tmp_path) -> str:
    return f"memory://{tmp_path.name}/run"


def test_locks(url, monkeypatch):
    target = Target(url)
    with TargetLock(target) as held:
        with (
            pytest.raises(InputError, match=rf"{url}: in use by process \d+ on "),
            TargetLock(target),
        ):
            pass
        assert target.read_bytes(LOCK_NAME) is not None
        old = json.loads(held._content())
        old["renewed"] = (datetime.now(UTC) - timedelta(minutes=11)).isoformat()
        old["token"] = "of a process that is silent"
        target.write_bytes(LOCK_NAME, json.dumps(old).encode())
        with TargetLock(target):
            pass
        assert target.read_bytes(LOCK_NAME) is None
    monkeypatch.setattr(remote, "LOCK_RENEWED_EVERY", 0.01)
    with TargetLock(target) as held:
        target.write_bytes(LOCK_NAME, b"{}")
        held._thread.join(timeout=5)
        with pytest.raises(InputError, match="another process took over"):
            held.check()


def test_a_lock_that_another_process_takes_at_the_same_moment_is_left_alone(url, monkeypatch):
    """Both saw no lock; the other wrote first."""
    target = Target(url)
    other = TargetLock(target)
    write = Target.write_bytes

    def second(self, name, data, *, new=False):
        monkeypatch.setattr(Target, "write_bytes", write)
        assert other.__enter__() is other
        return self.write_bytes(name, data, new=new)

    monkeypatch.setattr(Target, "write_bytes", second)
    with pytest.raises(InputError, match=r"in use by process \d+ on "), TargetLock(target):
        pass
    assert other._is_ours()
    other.__exit__(None, None, None)


def test_what_tells_a_file_is_its_check_sum_else_its_time_in_any_zone():
    noon = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    there = noon.astimezone(timezone(timedelta(hours=5)))
    listed = {"size": 3, "ETag": '"abc"', "LastModified": noon}
    assert remote._file(listed) == remote._file({"size": 3, "ETag": "abc", "LastModified": there, "mtime": 1})
    assert remote._file({"size": 3, "mtime": noon}) == remote._file({"size": 3, "mtime": there})
    assert remote._file({"size": 3, "mtime": noon}) == remote._file({"size": 3, "mtime": noon.timestamp()})
    assert remote._file({"size": 3, "mtime": noon}) != remote._file({"size": 3, "mtime": noon + timedelta(1)})


def test_addresses_are_shown_without_credentials():
    assert shown("s3://user:secret@bucket/a/run/?key=1#x") == "s3://bucket/a/run"
    assert shown("memory://bucket") == "memory://bucket"
    assert shown("s3://") == "s3://"
