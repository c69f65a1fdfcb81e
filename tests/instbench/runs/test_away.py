"""Images that are at an address: listed, known by their hashes, fetched when they are read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from instbench.errors import InputError
from instbench.runs.atomic import sha256_bytes
from instbench.runs.away import HASHES_NAME, ImageHashes, KnownImage, supplier_of, supplying
from instbench.runs.images import whole_size
from instbench.runs.store import RunFolder


def png(size: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size)).save(stream, format="PNG")
    return stream.getvalue()


class Shelf:
    """A supplier that has images by name and knows some of them."""

    def __init__(self, images: dict[str, bytes], known: set[str]) -> None:
        self.images, self._known = dict(images), known
        self.fetched: list[str] = []

    def away(self, folder: Path) -> dict[str, int]:
        return {name: len(data) for name, data in self.images.items()}

    def known(self, path: Path) -> KnownImage | None:
        data = self.images.get(path.name)
        size = None if data is None or path.name not in self._known else whole_size(data)
        return None if size is None or data is None else KnownImage(sha256_bytes(data), *size)

    def fetch(self, path: Path) -> bool:
        data = self.images.pop(path.name, None)
        if data is None:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.fetched.append(path.name)
        return True

    def forget(self, folder: Path) -> None:
        self.images.clear()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"a.png": png(8), "b.png": png(4), "c.png": png(8)[:-5]}, {"a.png", "b.png", "c.png"})


def test_what_is_known_of_an_image_is_not_fetched(tmp_path, shelf):
    data, size = shelf.images["a.png"], sum(map(len, shelf.images.values()))
    with supplying(tmp_path, shelf):
        store = RunFolder(tmp_path).pictures
        assert store.keys() == ["a", "b", "c"]
        assert (store.has("a", 8), store.has("b", 8), store.has("d", 8)) == (True, False, False)
        assert store.sha256("a") == sha256_bytes(data)
        assert store.size_in_bytes() == size
        assert shelf.fetched == []
        assert not store.has("c", 8)  # torn: it must be looked at
        assert store.read("a") == data
        assert shelf.fetched == ["c.png", "a.png"]
        assert store.keys() == ["a", "b", "c"]
        assert store.size_in_bytes() == size
        with pytest.raises(FileNotFoundError):
            store.read("d")
    assert supplier_of(tmp_path / "images") is None
    assert RunFolder(tmp_path).pictures.keys() == ["a", "c"]


def test_a_folder_whose_images_are_away_is_not_empty(tmp_path, shelf):
    with supplying(tmp_path, shelf):
        with pytest.raises(InputError, match=r"holds files that are no run \(images\)"):
            RunFolder(tmp_path).check_usable()
        RunFolder(tmp_path).clear()
        RunFolder(tmp_path).check_usable()
    assert shelf.images == {}


def test_hashes_are_bound_to_a_file_and_torn_lines_are_skipped(tmp_path):
    path = tmp_path / HASHES_NAME
    image = KnownImage("0" * 64, 8, 8)
    ImageHashes(path).add("a.png", "first", image)
    with path.open("a") as stream:
        stream.write('[]\n{"image": "b.png"\n')
        stream.write(json.dumps({"image": "c.png", "token": "t", "sha256": "/", "width": 1, "height": 1}))
    hashes = ImageHashes(path)
    assert hashes.find("a.png", "first") == image
    assert hashes.find("a.png", "second") is None
    assert hashes.find("c.png", "t") is None
    hashes.add("a.png", "first", image)
    hashes.add("a.png", "second", image)
    assert len(path.read_text().splitlines()) == 5
    assert ImageHashes(path).find("a.png", "second") == image
