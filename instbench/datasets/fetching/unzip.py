"""Unpacks ZIP files that may be hostile: only wanted members, only below the target, only so much."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instbench.datasets.catalog import Member
from instbench.datasets.validation import is_plain_relative_name
from instbench.errors import InputError
from instbench.progress import track

__all__ = ["ExtractedFile", "UnzipLimits", "unzip"]

_CHUNK = 1 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class UnzipLimits:
    """What an archive may hold at most.

    Attributes:
        members: Number of members, wanted or not.
        total_bytes: Unpacked size of the wanted members.
        ratio: Unpacked size of a wanted member by its packed size.
        ratio_from: Members that unpack to fewer bytes may have any ratio.
    """

    members: int = 300_000
    total_bytes: int = 64 * 1024**3
    ratio: float = 100.0
    ratio_from: int = 1 << 20


@dataclass(frozen=True, slots=True)
class ExtractedFile:
    """A file that was unpacked.

    Attributes:
        path: Path inside the target folder, with ``/``.
        size: Size in bytes.
        sha256: Checksum in hexadecimal.
    """

    path: str
    size: int
    sha256: str


def unzip(
    archive: Path,
    members: Sequence[Member],
    target: Path,
    *,
    listed: Collection[str] = (),
    limits: UnzipLimits | None = None,
) -> list[ExtractedFile]:
    """Unpacks the wanted members of an archive.

    Every name in the archive is checked before anything is written, and an archive with one bad member is
    refused as a whole: absolute names, ``..``, links and other special files, encrypted or doubled
    members. Names for the disk come from the allow-list and the last part of a checked name alone.

    Args:
        archive: The ZIP file.
        members: What is wanted.
        target: Existing folder to write below.
        listed: Paths below ``target`` that `Member.listed_only` lets through.
        limits: Bounds; None takes the defaults.

    Returns:
        What was written, in the order of the archive.

    Raises:
        InputError: If the archive is damaged, hostile, or holds nothing that is wanted.
        OSError: If the disk is full or cannot be written.
    """
    limits = limits or UnzipLimits()
    wanted_names = frozenset(listed)
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = list(_choose(opened.infolist(), members, wanted_names, limits))
            if not chosen:
                raise InputError("holds none of the wanted files; is it the right archive?")
            needed = sum(info.file_size for info, _ in chosen)
            _check_size(needed, limits, target)
            for folder in {PurePosixPath(path).parent for _, path in chosen}:
                (target / folder).mkdir(parents=True, exist_ok=True)
            return [
                _extract(opened, info, target, path)
                for info, path in track(chosen, description=f"unpacking {archive.name}")
            ]
    except InputError as error:
        raise InputError(f"{archive}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{archive}: is damaged ({reason}); delete it and fetch again") from None


def _choose(
    infos: list[zipfile.ZipInfo], members: Sequence[Member], listed: Collection[str], limits: UnzipLimits
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    if len(infos) > limits.members:
        raise InputError(f"holds {len(infos)} members; at most {limits.members} are accepted")
    patterns = [(re.compile(member.pattern), member) for member in members]
    seen: set[str] = set()
    taken: set[str] = set()
    for info in infos:
        _check_member(info, seen)
        if info.is_dir():
            continue
        for pattern, member in patterns:
            if not pattern.fullmatch(info.filename):
                continue
            path = f"{member.folder}/{PurePosixPath(info.filename).name}"
            if member.listed_only and path not in listed:
                continue
            if path in taken:
                raise InputError(f"member {info.filename!r} would overwrite another one")
            taken.add(path)
            _check_ratio(info, limits)
            yield info, path
            break


def _check_member(info: zipfile.ZipInfo, seen: set[str]) -> None:
    # zipfile cuts names at a NUL and turns the system's separator into "/": look at the name as it is stored.
    name = info.orig_filename.removesuffix("/")
    if not is_plain_relative_name(name):
        raise InputError(f"member {info.orig_filename!r} leads out of the folder")
    key = name.casefold()
    if key in seen:
        raise InputError(f"member {name!r} occurs twice")
    seen.add(key)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"member {name!r} is a link or special file")
    if info.flag_bits & _ENCRYPTED:
        raise InputError(f"member {name!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise InputError(f"member {name!r} is packed by an unusual method ({info.compress_type})")


def _check_ratio(info: zipfile.ZipInfo, limits: UnzipLimits) -> None:
    if info.file_size > limits.ratio_from and info.file_size > limits.ratio * max(info.compress_size, 1):
        raise InputError(
            f"member {info.filename!r} would unpack to {info.file_size} bytes "
            f"from {info.compress_size}; more than {limits.ratio:g} to 1 is refused"
        )


def _check_size(needed: int, limits: UnzipLimits, target: Path) -> None:
    if needed > limits.total_bytes:
        raise InputError(f"would unpack to {needed} bytes; at most {limits.total_bytes} are accepted")
    free = shutil.disk_usage(target).free
    if free < needed:
        raise InputError(f"needs {needed / 1e9:.1f} GB below {target}, where {free / 1e9:.1f} GB are free")


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, path: str) -> ExtractedFile:
    digest = hashlib.sha256()
    written = 0
    # "x": the folder is new, so whatever is there already is not ours to follow or overwrite.
    with opened.open(info) as source, (target / path).open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > info.file_size:
                raise InputError(f"member {info.filename!r} unpacks to more than it says")
            digest.update(chunk)
            sink.write(chunk)
    if written != info.file_size:
        raise InputError(f"member {info.filename!r} unpacks to {written} bytes, not {info.file_size}")
    return ExtractedFile(path, written, digest.hexdigest())
