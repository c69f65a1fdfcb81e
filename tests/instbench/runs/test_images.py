"""Both ways to keep images behave alike."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instbench.errors import InputError
from instbench.runs.archives import ImageArchives
from instbench.runs.images import ImageFiles, ImageStore, check_store, file_name


def png(color: str = "red", size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), color).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(params=[ImageFiles, ImageArchives])
def store(request, tmp_path) -> ImageStore:
    (tmp_path / "images").mkdir()
    return request.param(tmp_path / "images")


def test_what_was_written_is_read_back_also_by_another_process(store):
    images = {"b": png("blue"), "a": png("red", 9), "c.1-x_y": png("lime", 33)}
    for key, data in images.items():
        store.write(key, data)
    for reader in (store, type(store)(store.folder), pickle.loads(pickle.dumps(store))):  # noqa: S301
        assert reader.keys() == sorted(images)
        for key, data in images.items():
            assert reader.read(key) == data
            assert reader.sha256(key) == hashlib.sha256(data).hexdigest()
            assert key in reader.place(key)
        assert reader.open("b").getpixel((0, 0)) == (0, 0, 255)
        assert reader.has("a", 9)
        assert not reader.has("a", 8)


def test_an_image_that_is_not_there(store):
    assert store.keys() == []
    assert not store.has("a", 8)
    for call in (store.read, store.open, store.sha256):
        with pytest.raises(FileNotFoundError):
            call("a")
    assert store.place("a").endswith("a.png")
    store.prepare()
    assert list(store.folder.iterdir()) == []


def test_an_image_written_again_replaces_the_first(store):
    store.write("a", png("red"))
    store.write("b", png("red"))
    store.write("a", png("blue"))
    for reader in (store, type(store)(store.folder)):
        assert reader.read("a") == png("blue")
        assert reader.keys() == ["a", "b"]


def test_another_format_or_damage_is_no_image(store):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format="BMP")
    store.write("bmp", stream.getvalue())
    for position, byte in ((40, 1), (-1, 0), (-30, 1)):
        data = bytearray(png())
        data[position] ^= byte or 0xFF
        store.write("damaged", bytes(data))
        assert not store.has("damaged", 8)
    assert not store.has("bmp", 8)
    store.write("damaged", png())
    assert store.has("damaged", 8)


def test_a_reader_sees_what_a_writer_adds_later(store):
    reader = type(store)(store.folder)
    assert not reader.has("a", 8)
    for key in ("a", "b", "c"):
        store.write(key, png())
        assert reader.has(key, 8)


@given(
    st.text(max_size=12) | st.sampled_from(["..", "a/b", "a..b", ".a", "-a", "a\n", "A", "", "a\\b", "c:"])
)
def test_a_key_never_leads_out_of_the_folder(key):
    try:
        name = file_name(key)
    except InputError:
        return
    path = Path("/somewhere/images") / name
    assert path.parent == Path("/somewhere/images")
    assert ".." not in path.parts


def test_an_unknown_kind_is_named():
    assert check_store("archives") == "archives"
    with pytest.raises(InputError, match=r"--image-store zip: give files or archives"):
        check_store("zip")
