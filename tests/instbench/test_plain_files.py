"""Devices and pipes are neither read without end nor replaced by files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instbench.plain_files import check_plain, read_file
from instbench.runs.atomic import sha256_file, write_bytes


def test_plain_files_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "link", None) == b"abc"
    with pytest.raises(OSError, match="has 3 bytes, more than 2"):
        read_file(tmp_path / "a", 2)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "nothing"])
def test_what_is_no_plain_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    for read in (check_plain, read_file, sha256_file):
        with pytest.raises(OSError, match=r"is a |No such file|symbolic links"):
            read(path)


def test_devices_are_not_replaced_by_files(tmp_path):
    path = tmp_path / "null"
    path.symlink_to("/dev/null")
    with pytest.raises(OSError, match="is a pipe or a device"):
        write_bytes(path, b"x")
    assert Path("/dev/null").is_char_device()
    assert path.is_symlink()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "\N{CAT}" * 60 + ".csv"])
def test_names_as_long_as_the_system_takes(name, tmp_path):
    write_bytes(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
