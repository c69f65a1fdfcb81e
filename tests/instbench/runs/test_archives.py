"""Archives: whole tar files at any time, torn ends, damage, and what does not belong there."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from instbench.errors import InputError
from instbench.runs import archives
from instbench.runs.archives import ImageArchives


def png(seed: int, size: int = 13) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


IMAGES = {f"image-{index}": png(index) for index in range(3)}


def filled(folder: Path, images: dict[str, bytes] = IMAGES) -> ImageArchives:
    folder.mkdir(parents=True, exist_ok=True)
    store = ImageArchives(folder)
    for key, data in images.items():
        store.write(key, data)
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    filled(folder)
    return (folder / "images-00000.tar").read_bytes()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("torn")


def stored(folder: Path) -> dict[str, bytes]:
    store = ImageArchives(folder)
    return {key: store.read(key) for key in store.keys() if store.has(key, 13)}  # noqa: SIM118 - no mapping


def resumed(folder: Path, torn: bytes) -> dict[str, bytes]:
    """Puts a torn archive in a folder and makes what is missing; the images that had to be made."""
    path = folder / "images-00000.tar"
    path.write_bytes(torn)
    store = ImageArchives(folder)
    store.prepare()
    assert path.stat().st_size % tarfile.BLOCKSIZE == 0
    made = {key: data for key, data in IMAGES.items() if not store.has(key, 13)}
    for key, data in made.items():
        store.write(key, data)
    assert stored(folder) == IMAGES
    with tarfile.open(path) as archive:  # nothing of the torn end is left between the entries
        assert archive.getnames() == [f"{key}.png" for key in IMAGES]
    return made


def test_any_tar_program_reads_them_after_each_write(tmp_path):
    store = ImageArchives(tmp_path)
    for count, (key, data) in enumerate(IMAGES.items(), start=1):
        store.write(key, data)
        with tarfile.open(tmp_path / "images-00000.tar", "r:") as archive:
            assert archive.getnames() == [f"{one}.png" for one in list(IMAGES)[:count]]
    if shutil.which("tar"):
        subprocess.run(["tar", "-xf", "images-00000.tar"], cwd=tmp_path, check=True)  # noqa: S607
        assert all((tmp_path / f"{key}.png").read_bytes() == data for key, data in IMAGES.items())


def test_equal_images_make_equal_archives(tmp_path):
    filled(tmp_path / "a")
    filled(tmp_path / "b", dict(list(IMAGES.items())[:2]))
    filled(tmp_path / "b", dict(list(IMAGES.items())[2:]))
    names = [(tmp_path / one / "images-00000.tar").read_bytes() for one in "ab"]
    assert names[0] == names[1]


def test_archives_are_bounded_in_number_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageArchives, "shard_images", 2)
    store = filled(tmp_path / "number", {f"k{index}": png(index) for index in range(5)})
    assert sorted(path.name for path in store.folder.iterdir()) == [f"images-0000{n}.tar" for n in range(3)]
    assert "images-00002.tar" in store.place("k4")
    assert len(stored(store.folder)) == 5
    again = ImageArchives(store.folder)  # goes on in the archive that is not full
    again.write("k5", png(5))
    again.write("k6", png(6))
    assert len(list(store.folder.iterdir())) == 4
    assert ImageArchives(store.folder).keys() == [f"k{index}" for index in range(7)]
    monkeypatch.setattr(ImageArchives, "shard_images", 1000)
    monkeypatch.setattr(ImageArchives, "shard_bytes", 100)
    assert len(list(filled(tmp_path / "bytes").folder.iterdir())) == 3


def tear(workplace: Path, whole: bytes, step: int) -> int:
    """Tears the last record at every so many bytes; how many cases there were.

    A killed process leaves a prefix of the record; a power cut zeros for what did not reach the disk.
    """
    end = len(whole) - 1024
    start = end - (512 + -(-len(IMAGES["image-2"]) // 512) * 512)
    last = {"image-2": IMAGES["image-2"]}
    complete = start + 512 + len(IMAGES["image-2"])
    for cut in range(start, end, step):
        assert resumed(workplace, whole[:cut]) == last, cut
        # Bytes of the file's new end may be on the disk without those before it.
        assert resumed(workplace, whole[:cut] + bytes(len(whole) - cut)) == (
            last if cut < complete else {}
        ), cut
    for cut in range(end, len(whole) + 1, step):
        assert resumed(workplace, whole[:cut]) == {}, cut
    return 2 * len(range(start, end, step)) + len(range(end, len(whole) + 1, step))


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_torn_within_the_last_record(workplace, whole, no_sync):
    assert tear(workplace, whole, 11) > 200


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_blocks_of_the_last_record_that_did_not_reach_the_disk(workplace, whole, data):
    end = len(whole) - 1024
    start = end - (512 + -(-len(IMAGES["image-2"]) // 512) * 512)
    lost = data.draw(st.sets(st.integers(start // 512, end // 512 - 1), min_size=1))
    torn = bytearray(whole)
    for block in lost:
        torn[block * 512 : block * 512 + 512] = bytes(512)
    made = resumed(workplace, bytes(torn))
    assert list(made) in ([], ["image-2"])
    assert made or bytes(torn) == whole


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_byte_costs_one_image_at_most(workplace, whole, position, change):
    damaged = bytearray(whole)
    damaged[position % len(whole)] ^= change
    path = workplace / "images-00000.tar"
    path.write_bytes(bytes(damaged))
    store = ImageArchives(workplace)
    try:
        store.prepare()
    except InputError as error:  # a good check sum over another name is not possible by one byte
        pytest.fail(str(error))
    left = stored(workplace)
    assert len(left) >= 2
    assert all(left[key] == IMAGES[key] for key in left)
    for key, data in IMAGES.items():
        if key not in left:
            store.write(key, data)
    assert stored(workplace) == IMAGES


def test_a_full_disk_leaves_no_torn_end(tmp_path, monkeypatch):
    store = filled(tmp_path)
    before = (tmp_path / "images-00000.tar").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            store.write("more", png(9))
    assert error.value.filename == str(tmp_path / "images-00000.tar")
    assert not store.has("more", 13)
    assert (tmp_path / "images-00000.tar").read_bytes() == before[:-1024]
    store.write("more", png(9))
    assert stored(tmp_path) == {**IMAGES, "more": png(9)}


def test_every_image_is_synced_before_write_returns(tmp_path, monkeypatch):
    store, synced, fsync = ImageArchives(tmp_path), [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store.write("a", png(1))
    path = tmp_path / "images-00000.tar"
    assert synced[0] == (path.stat().st_ino, path.stat().st_size)
    assert synced[1][0] == tmp_path.stat().st_ino, "the name of a new archive"
    store.write("b", png(2))
    assert synced[2:] == [(path.stat().st_ino, path.stat().st_size)]


def entry(name: str, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = 4
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + b"data".ljust(512, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        entry("../../evil.png"),
        entry("/etc/evil.png"),
        entry("folder/a.png"),
        entry("a.txt"),
        entry("A.png"),
        entry("a" * 300 + ".png"),
        entry("a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        entry("a.png", type=tarfile.LNKTYPE, linkname="b.png", size=0),
        entry("a.png", type=tarfile.DIRTYPE, size=0),
        entry("a.png", type=tarfile.CHRTYPE, size=0),
        entry("a.png", size=2**29),
        entry("a.png", size=2**40),
        entry("a.png", size=0),
    ],
)
def test_what_is_no_image_of_ours_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "images-00000.tar").write_bytes(content + bytes(1024))
    store = ImageArchives(tmp_path)
    for call in (store.prepare, store.keys, lambda: store.has("a", 13), lambda: store.write("b", png(1))):
        with pytest.raises(InputError, match=r"images-00000\.tar: .* is no image of a run") as error:
            call()
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["images-00000.tar"]


def test_links_and_huge_files_are_not_read(tmp_path, monkeypatch):
    filled(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images-00000.tar").symlink_to(tmp_path / "elsewhere" / "images-00000.tar")
    with pytest.raises(InputError, match="no plain file"):
        ImageArchives(tmp_path / "images").keys()
    monkeypatch.setattr(archives, "_MAX_ARCHIVE", 1000)
    with pytest.raises(InputError, match="bytes are too many"):
        ImageArchives(tmp_path / "elsewhere").keys()


def test_too_large_images_and_too_long_keys_are_refused(tmp_path, monkeypatch):
    store = ImageArchives(tmp_path)
    with pytest.raises(InputError, match="name is too long"):
        store.write("k" * 120, png(1))
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(InputError, match="too many for an image"):
        store.write("a", png(1))
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_the_folder_do_not_count(tmp_path):
    for name in ("images-1.tar", "images-00000.tar.gz", "x.tar", "image-9.png"):
        (tmp_path / name).write_bytes(b"x")
    assert stored(filled(tmp_path).folder) == IMAGES
