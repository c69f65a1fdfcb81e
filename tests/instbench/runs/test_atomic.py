from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instbench.runs.atomic import (
    TEMPORARY_PREFIX,
    append_line,
    atomic_path,
    canonical_json,
    make_folder,
    remove_temporary,
    write_bytes,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["file.json"]


def test_nan_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_left_overs_are_removed_and_nothing_else(tmp_path):
    (tmp_path / f"{TEMPORARY_PREFIX}abc-x.png").write_bytes(b"half")
    write_bytes(tmp_path / "x.png", b"whole")
    remove_temporary(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["x.png"]


def test_append_line(tmp_path):
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=8), json_values))
def test_canonical_json_ignores_the_order_of_keys(value):
    assert canonical_json(dict(reversed(list(value.items())))) == canonical_json(value)


def test_folders_are_made_with_all_above_them_and_left_alone_if_there(tmp_path):
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").write_text("kept")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "file").read_text() == "kept"


def test_a_file_in_the_way_of_a_folder_is_an_error_of_the_disk(tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b")
