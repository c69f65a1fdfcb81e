"""Fetches a data set of the catalog into the data home."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from instbench.datasets.catalog import ArchiveSpec, DatasetSpec, get_dataset
from instbench.datasets.fetching.structure import check_structure, listed_images
from instbench.datasets.fetching.transfer import TransferSettings, download
from instbench.datasets.fetching.unzip import ExtractedFile, unzip
from instbench.datasets.home import MANIFEST_NAME, data_home
from instbench.datasets.manifest import (
    ArchiveRecord,
    FileRecord,
    Manifest,
    read_manifest,
    verify_folder,
    write_manifest,
)
from instbench.errors import InputError
from instbench.runs.atomic import TEMPORARY_PREFIX
from instbench.runs.lock import RunLock

__all__ = ["ARCHIVES_FOLDER", "FetchReport", "fetch_dataset"]

logger = logging.getLogger(__name__)

ARCHIVES_FOLDER = "archives"
"""Folder of the data home for downloads; an archive that lies there already is checked and used."""


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a fetch did.

    Attributes:
        folder: Folder of the data set.
        manifest: Its manifest.
        was_there: Whether it was complete before.
    """

    folder: Path
    manifest: Manifest
    was_there: bool


def fetch_dataset(
    dataset: str | DatasetSpec,
    home: Path | None = None,
    *,
    mirror: str | None = None,
    with_images: bool = True,
    keep_archives: bool = False,
    settings: TransferSettings | None = None,
) -> FetchReport:
    """Downloads, checks and unpacks a data set; the folder appears whole or not at all.

    A complete data set (names and sizes as in its manifest) is left alone. Interrupted downloads go on
    where they stopped. Sizes and checksums are the published ones wherever it is fetched from; an
    archive without a published checksum keeps that of its first download, with a warning.

    Args:
        dataset: Name in the catalog, or a data set of one's own.
        home: Folder of the data sets, made if missing; None takes `data_home`.
        mirror: Address that takes the place of the official scheme and host; paths stay the same.
        with_images: Also fetch the images.
        keep_archives: Keep the archives afterwards.
        settings: Patience of the downloads.

    Returns:
        Folder and manifest.

    Raises:
        InputError: If the name is unknown, a download or check fails, an archive is hostile, or another
            process is fetching into the same folder.
        OSError: If the disk is full or cannot be written.
    """
    spec = get_dataset(dataset) if isinstance(dataset, str) else dataset
    home = data_home() if home is None else home.absolute()
    archives = [archive for archive in spec.archives if with_images or not archive.holds_images]
    addresses = [_address(archive.url, mirror) for archive in archives]
    home.mkdir(parents=True, exist_ok=True)
    with RunLock(home):
        folder = home / spec.name
        old = _old_manifest(folder)
        if old is not None and _is_complete(folder, old, archives):
            return FetchReport(folder, old, was_there=True)
        for leftover in home.glob(f"{TEMPORARY_PREFIX}*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        store = home / ARCHIVES_FOLDER
        store.mkdir(exist_ok=True)
        records = [
            _fetch_archive(archive, address, store, old, settings)
            for archive, address in zip(archives, addresses, strict=True)
        ]
        with _appearing(folder) as partial:
            files = _unpack(spec, archives, store, partial)
            counts = check_structure(partial, spec, files, with_images=with_images)
            manifest = Manifest(
                name=spec.name,
                kind="fetched",
                archives=tuple(records),
                counts=counts,
                files=tuple(
                    FileRecord(path=file.path, size=file.size, sha256=file.sha256)
                    for file in sorted(files, key=lambda file: file.path)
                ),
            )
            write_manifest(partial, manifest)
        if not keep_archives:
            for archive in archives:
                (store / archive.name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # holds other downloads
                store.rmdir()
    return FetchReport(folder, manifest, was_there=False)


def _address(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InputError(f"--mirror {mirror!r}: must be an address like https://host/folder")
    return mirror.rstrip("/") + urlsplit(url).path


def _old_manifest(folder: Path) -> Manifest | None:
    if not (folder / MANIFEST_NAME).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                f"{folder}: holds other files and no {MANIFEST_NAME}; move it away and fetch again"
            )
        return None
    manifest = read_manifest(folder)
    if manifest.kind != "fetched" or manifest.name != folder.name:
        raise InputError(
            f"{folder}: holds other data ({manifest.kind} {manifest.name}); choose another folder"
        )
    return manifest


def _is_complete(folder: Path, manifest: Manifest, archives: Sequence[ArchiveSpec]) -> bool:
    fetched = {record.url.rpartition("/")[2] for record in manifest.archives}
    if not {archive.name for archive in archives} <= fetched:
        return False
    problems = verify_folder(folder, quick=True)
    if problems:
        logger.warning("%s: %d problems, the first: %s; fetching again", folder, len(problems), problems[0])
    return not problems


def _pin(archive: ArchiveSpec, old: Manifest | None) -> ArchiveRecord | None:
    """What the first download of an archive without a published sum was, if there was one."""
    if archive.sha256 is not None or old is None:
        return None
    same = (record for record in old.archives if record.url.rpartition("/")[2] == archive.name)
    return next(same, None)


def _fetch_archive(
    archive: ArchiveSpec,
    address: str,
    store: Path,
    old: Manifest | None,
    settings: TransferSettings | None,
) -> ArchiveRecord:
    pin = _pin(archive, old)
    expected = archive if pin is None else replace(archive, size=pin.size, sha256=pin.sha256)
    receipt = download(
        address, store / archive.name, size=expected.size, sha256=expected.sha256, settings=settings
    )
    if expected.sha256 is None:
        logger.warning(
            "%s: no published checksum is known; its SHA-256 %s is recorded and compared from now on",
            archive.name,
            receipt.sha256,
        )
    return ArchiveRecord(
        url=address,
        size=receipt.size,
        sha256=receipt.sha256,
        checksum="first-use" if archive.sha256 is None else "published",
    )


def _unpack(
    spec: DatasetSpec, archives: Sequence[ArchiveSpec], store: Path, partial: Path
) -> list[ExtractedFile]:
    files: list[ExtractedFile] = []
    listed: frozenset[str] = frozenset()
    for archive in archives:
        if not listed and any(member.listed_only for member in archive.members):
            listed = listed_images(partial, spec)
        files += unzip(store / archive.name, archive.members, partial, listed=listed)
    return files


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of ``folder`` when the block succeeds."""
    partial = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{folder.name}")
    partial.mkdir()
    try:
        yield partial
        if hasattr(os, "sync"):
            os.sync()  # thousands of files at once: cheaper than one by one
        if folder.exists():
            old = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-old-{folder.name}")
            folder.rename(old)
            partial.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
