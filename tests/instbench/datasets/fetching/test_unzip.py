from __future__ import annotations

import contextlib
import hashlib
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instbench.datasets.catalog import Member
from instbench.datasets.fetching import unzip as module
from instbench.datasets.fetching.unzip import ExtractedFile, UnzipLimits, unzip
from instbench.errors import InputError

JPEGS = (Member(r"val/[0-9]+\.jpg", "images"),)


def make(
    path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_wanted_members_are_written(tmp_path: Path, target: Path) -> None:
    archive = make(
        tmp_path / "a.zip", ("val/", b""), ("val/1.jpg", b"one"), ("val/1.txt", b"no"), ("x/2.jpg", b"no")
    )
    expected = ExtractedFile("images/1.jpg", 3, hashlib.sha256(b"one").hexdigest())
    assert unzip(archive, JPEGS, target) == [expected]
    assert written(target) == ["images/1.jpg"]


def test_listed_members_alone_where_asked(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"), ("val/2.jpg", b"two"))
    members = (Member(r"val/[0-9]+\.jpg", "images", listed_only=True),)
    assert [file.path for file in unzip(archive, members, target, listed={"images/2.jpg"})] == [
        "images/2.jpg"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../1.jpg",
        "/etc/1.jpg",
        "val/../../1.jpg",
        "val\\..\\1.jpg",
        "C:/1.jpg",
        "val//1.jpg",
        "./1.jpg",
        "a\nb",
    ],
)
def test_names_that_lead_out_refuse_the_archive(tmp_path: Path, target: Path, name: str) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"), (name, b"evil"))
    with pytest.raises(InputError, match=r"a.zip: member .* leads out of the folder"):
        unzip(archive, JPEGS, target)
    assert written(tmp_path) == ["a.zip"]


def test_a_name_with_a_hidden_end_is_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpgXtail", b"one"))
    archive.write_bytes(archive.read_bytes().replace(b"jpgXtail", b"jpg\0tail"))
    with pytest.raises(InputError, match="leads out of the folder"):
        unzip(archive, JPEGS, target)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(tmp_path: Path, target: Path, kind: int) -> None:
    info = zipfile.ZipInfo("val/1.jpg")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    archive = make(tmp_path / "a.zip", (info, b"/etc/passwd"))
    with pytest.raises(InputError, match="is a link or special file"):
        unzip(archive, JPEGS, target)
    assert written(target) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["val/1.jpg", "VAL/1.JPG"])
def test_doubled_names_are_refused(tmp_path: Path, target: Path, second: str) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"), (second, b"two"))
    with pytest.raises(InputError, match="occurs twice"):
        unzip(archive, JPEGS, target)


def test_two_members_for_one_file_are_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("a/1.jpg", b"one"), ("b/1.jpg", b"two"))
    with pytest.raises(InputError, match="would overwrite another one"):
        unzip(archive, (Member(r"[ab]/1\.jpg", "images"),), target)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", bytes(8 << 20)))
    with pytest.raises(InputError, match="more than 100 to 1 is refused"):
        unzip(archive, JPEGS, target)
    assert written(target) == []


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one" * 1000))
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace((3000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match=r"is damaged|unpacks to"):
        unzip(archive, JPEGS, target)


def test_too_many_members_and_too_many_bytes_are_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", *((f"val/{n}.jpg", b"12345") for n in range(6)))
    with pytest.raises(InputError, match="holds 6 members; at most 5"):
        unzip(archive, JPEGS, target, limits=UnzipLimits(members=5))
    with pytest.raises(InputError, match="would unpack to 30 bytes; at most 29"):
        unzip(archive, JPEGS, target, limits=UnzipLimits(total_bytes=29))
    assert written(target) == []


def test_a_full_disk_is_said_before(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"))
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=1))
    with pytest.raises(InputError, match=r"where 0\.0 GB are free"):
        unzip(archive, JPEGS, target)


def test_encrypted_and_unusual_members_are_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"), method=zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="packed by an unusual method"):
        unzip(archive, JPEGS, target)
    archive = make(tmp_path / "b.zip", ("val/1.jpg", b"one"), method=zipfile.ZIP_STORED)
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(InputError, match="is encrypted"):
        unzip(archive, JPEGS, target)


def test_files_that_are_there_are_not_overwritten(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("val/1.jpg", b"one"))
    (target / "images").mkdir()
    (target / "images" / "1.jpg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        unzip(archive, JPEGS, target)
    assert not (tmp_path / "elsewhere").exists()


def test_an_archive_without_wanted_members_is_refused(tmp_path: Path, target: Path) -> None:
    archive = make(tmp_path / "a.zip", ("other/1.jpg", b"one"))
    with pytest.raises(InputError, match="holds none of the wanted files"):
        unzip(archive, JPEGS, target)


def test_what_is_no_archive_is_said(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"a.zip: is damaged \(File is not a zip file\)"):
        unzip(archive, JPEGS, target)


@given(st.data())
def test_any_damage_is_an_input_error_or_unpacks(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    archive = make(folder / "a.zip", ("val/1.jpg", b"one" * 50), ("val/2.jpg", b"two"))
    raw = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    target = folder / "target"
    target.mkdir()
    with contextlib.suppress(InputError):
        unzip(archive, JPEGS, target)
    assert all(name == "a.zip" or name.startswith("target/images/") for name in written(folder))
