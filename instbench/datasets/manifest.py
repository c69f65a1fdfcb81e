"""The manifest of a data folder: every file with its size and SHA-256, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from instbench.datasets.catalog import DATASETS
from instbench.datasets.home import MANIFEST_NAME, data_home
from instbench.datasets.validation import Problem, Severity, is_plain_relative_name, read_json
from instbench.errors import InputError
from instbench.progress import track
from instbench.runs.atomic import sha256_file, write_json

__all__ = ["ArchiveRecord", "FileRecord", "Manifest", "data_folders", "read_manifest"]
__all__ += ["verify_folder", "write_manifest"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Strict):
    """A file of the folder.

    Attributes:
        path: Path inside the folder, with ``/``.
        size: Size in bytes.
        sha256: Checksum in hexadecimal.
    """

    path: str
    size: int = Field(ge=0)
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not is_plain_relative_name(path):
            raise ValueError("must be a plain relative name inside the folder")
        return path


class ArchiveRecord(_Strict):
    """An archive that files came from.

    Attributes:
        url: Where it was fetched from.
        size: Size in bytes.
        sha256: Checksum in hexadecimal.
        checksum: "published" if it was compared with a published sum, "first-use" if none is known and this
            download sets it.
    """

    url: str
    size: int = Field(ge=0)
    sha256: Sha256
    checksum: Literal["published", "first-use"]


class Manifest(_Strict):
    """Everything about a data folder that can be checked again.

    Attributes:
        schema_version: Version of this file's form.
        name: Name of the data set.
        kind: "fetched" or "canvas".
        archives: Archives that the files came from.
        counts: Numbers of records, e.g. ``{"images": 5000}``.
        settings: How the files were made, e.g. the canvas size and the sources' checksums.
        files: The files, sorted by path.
    """

    schema_version: Literal[1] = 1
    name: str
    kind: Literal["fetched", "canvas"]
    archives: tuple[ArchiveRecord, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    files: tuple[FileRecord, ...]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest into its folder; equal manifests give equal bytes."""
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a folder.

    Raises:
        InputError: If there is none, or it does not fit the schema; names file and field.
    """
    path = folder / MANIFEST_NAME
    if folder.is_dir() and not path.exists():
        raise InputError(
            f"{folder}: has no {MANIFEST_NAME}; only fetched or prepared folders can be verified"
        )
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(root)"
        raise InputError(f"{path}: field {field}: {first['msg']}; fetch or prepare the data again") from None


def data_folders(target: str, home: Path | None = None) -> list[Path]:
    """The folders with manifests that a name or path stands for.

    Args:
        target: Name of a data set in the data home, a folder with a manifest, or a folder of such folders.
        home: Folder of the data sets; None takes `data_home`.

    Raises:
        InputError: If there is none.
    """
    folder = Path(target)
    if target in DATASETS and not (folder / MANIFEST_NAME).is_file():
        folder = (data_home() if home is None else home) / target
        if not folder.is_dir():
            raise InputError(f"{folder}: data set {target} is not there; run `instbench data fetch {target}`")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; data sets by name: {', '.join(DATASETS)}")
    below = sorted(path.parent for path in folder.glob(f"[!.]*/{MANIFEST_NAME}"))
    return [folder] if (folder / MANIFEST_NAME).is_file() or not below else below


def verify_folder(folder: Path, *, quick: bool = False) -> list[Problem]:
    """Compares the files of a folder with its manifest.

    Args:
        folder: The folder.
        quick: Compare names and sizes only, not checksums.

    Returns:
        All differences: missing, changed and unknown files, by path. Files whose name starts with a dot
        do not count.

    Raises:
        InputError: If the manifest is missing or bad.
    """
    manifest = read_manifest(folder)
    problems = []
    for record in track(manifest.files, description=f"verifying {folder.name}"):
        reason = _difference(folder / record.path, record, quick=quick)
        if reason is not None:
            problems.append(Problem(Severity.ERROR, record.path, reason))
    known = {record.path for record in manifest.files} | {MANIFEST_NAME}
    problems += [
        Problem(Severity.ERROR, path, "is not in the manifest; move it elsewhere")
        for path in _files_below(folder)
        if path not in known
    ]
    return sorted(problems, key=lambda problem: problem.where)


def _difference(path: Path, record: FileRecord, *, quick: bool) -> str | None:
    if path.is_symlink():
        return "is a link, not the file"
    try:
        size = path.stat().st_size
        if size != record.size:
            return f"has {size} bytes, not {record.size}"
        if not quick and sha256_file(path) != record.sha256:
            return "its SHA-256 differs; the content has changed"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def _files_below(folder: Path) -> Iterator[str]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield (Path(base) / name).relative_to(folder).as_posix()
