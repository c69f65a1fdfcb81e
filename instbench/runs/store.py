"""The run folder: which files there are, and how they are written and read."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from instbench import defaults
from instbench.errors import InputError
from instbench.plain_files import read_file
from instbench.runs.archives import ImageArchives
from instbench.runs.atomic import (
    TEMPORARY_PREFIX,
    append_line,
    make_folder,
    remove_temporary,
    sync_folder,
    write_json,
)
from instbench.runs.away import HASHES_NAME, supplier_of
from instbench.runs.identity import identity_differences
from instbench.runs.images import ImageFiles, ImageStore, StoreKind
from instbench.runs.lock import LOCK_NAME
from instbench.runs.ordering import in_order
from instbench.runs.records import ResultsRecord, RunRecord, read_record

__all__ = ["RunFolder", "belongs_to_run", "split_run"]

logger = logging.getLogger(__name__)

_FILES = (
    *("run.json", "layouts.jsonl", "images.jsonl", "instances.parquet"),
    *("samples.npz", "results.json", "report.html", HASHES_NAME),
)
_FOLDERS = {
    "images": re.compile(r"[a-z0-9._-]+\.png|images-[0-9]+\.tar"),
    "observations": re.compile(r"[a-z0-9._-]+\.parquet"),
    "overlays": re.compile(r"[a-z0-9._-]+\.png"),
    "report_files": re.compile(r"[a-z0-9._-]+\.webp"),
}


def belongs_to_run(name: str) -> bool:
    """Whether a run folder gives this name to a file.

    Args:
        name: A path relative to the folder, with forward slashes.

    Returns:
        False for temporary files and everything else that is no output of a run.
    """
    folder, _, last = name.rpartition("/")
    if not folder:
        return last in _FILES
    pattern = _FOLDERS.get("observations" if folder == "observations/parts" else folder)
    return pattern is not None and pattern.fullmatch(last) is not None and not last.startswith(".")


def split_run(name: str) -> tuple[str, str]:
    """Splits a relative path in a folder of runs.

    Args:
        name: A path with forward slashes, in a run folder or in a folder of runs.

    Returns:
        The run's folder, "" if it is the folder itself, and the name in the run's folder.
    """
    first, slash, rest = name.partition("/")
    in_run = slash and first not in _FOLDERS and re.fullmatch(r"[a-z0-9-]+", first)
    return (first, rest) if in_run else ("", name)


class RunFolder:
    """Files of one run.

    Args:
        root: The folder. It is made by `prepare`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_json = root / "run.json"
        self.results_json = root / "results.json"
        self.layouts_jsonl = root / "layouts.jsonl"
        self.images_jsonl = root / "images.jsonl"
        self.instances_parquet = root / "instances.parquet"
        self.samples_npz = root / "samples.npz"
        self.images = root / "images"
        self.observations = root / "observations"
        self.overlays = root / "overlays"
        self._pictures: ImageStore | None = None

    # -- taking the folder

    def check_usable(self) -> None:
        """Refuses a path that is no folder, or a folder with something else in it.

        Raises:
            InputError: If the path is a file, or holds files but no run.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root}: is a file, not a folder; choose another -o")
        if not self.root.is_dir() or self.run_json.exists():
            return
        # Without run.json nobody knows what made the pictures in here; they must not pass for ours.
        strangers = [path.name for path in self._content() if not self._is_ours(path)]
        supplier = supplier_of(self.images)
        if supplier is not None and supplier.away(self.images):
            strangers.append(self.images.name)
        if strangers:
            raise InputError(
                f"{self.root}: holds files that are no run ({', '.join(sorted(strangers)[:3])}); choose another -o"
            )

    def prepare(self) -> None:
        """Makes the folders and removes what an interrupted write left.

        The folder must be locked; `keep_images_in` goes before it in a new one.

        Raises:
            InputError: If a part of it is a link, through which files elsewhere would be written and deleted.
        """
        for path in (self.images, self.observations, self.observations / "parts", self.images_jsonl):
            if path.is_symlink():
                raise InputError(
                    f"{path}: is a link; put the {path.name} of the run itself there, or link the whole run"
                )
        for folder in (self.root, self.images, self.observations):
            make_folder(folder)
            remove_temporary(folder)
        self.pictures.prepare()

    def check_identity(self, ours: Mapping[str, Any]) -> RunRecord | None:
        """Compares the identity in the folder with ours.

        Args:
            ours: Identity asked for now, as JSON.

        Returns:
            The record in the folder, or None for a new run.

        Raises:
            InputError: If the folder holds another run; names every field that differs.
        """
        if not self.run_json.exists():
            return None
        record = read_record(self.run_json, RunRecord)
        differences = identity_differences(record.identity, ours)
        if differences:
            listed = "; ".join(str(difference) for difference in differences)
            raise InputError(f"{self.root}: holds another run: {listed}; choose another -o or add --fresh")
        return record

    def clear(self) -> None:
        """Deletes our own files, and only those; anything else stays where it is.

        ``run.json`` goes last: as long as pictures are left, the folder says which run they belong to.
        """
        for name, pattern in _FOLDERS.items():
            folder = self.root / name
            if folder.is_symlink() or not folder.is_dir():
                continue
            for path in folder.iterdir():
                if path.is_file() and pattern.fullmatch(path.name):
                    path.unlink()
            sync_folder(folder)
        supplier = supplier_of(self.images)
        if supplier is not None:
            supplier.forget(self.images)
        shutil.rmtree(self.observations / "parts", ignore_errors=True)
        for name in reversed(_FILES):
            (self.root / name).unlink(missing_ok=True)
        self._pictures = None

    def _content(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.name != LOCK_NAME]

    @staticmethod
    def _is_ours(path: Path) -> bool:
        if path.name in _FOLDERS:
            return path.is_dir() and not any(path.iterdir())
        return path.name in _FILES or path.name.startswith(TEMPORARY_PREFIX)

    # -- records

    def read_run(self) -> RunRecord:
        """Reads ``run.json``."""
        if not self.run_json.exists():
            raise InputError(f"{self.root}: no run here (run.json is missing); check the path")
        return read_record(self.run_json, RunRecord)

    def write_run(self, record: RunRecord) -> None:
        """Writes ``run.json`` atomically."""
        write_json(self.run_json, record.model_dump(mode="json"))

    def read_results(self) -> ResultsRecord:
        """Reads ``results.json``, with numbers and bins in the order for people."""
        return in_order(read_record(self.results_json, ResultsRecord))

    def write_results(self, record: ResultsRecord) -> None:
        """Writes ``results.json`` atomically."""
        write_json(self.results_json, record.model_dump(mode="json"))

    # -- images

    @property
    def pictures(self) -> ImageStore:
        """The images, kept as ``run.json`` says; as files where there is none."""
        if self._pictures is None:
            kind = self.read_run().image_store if self.run_json.exists() else "files"
            self._pictures = _image_store(kind, self.images)
        return self._pictures

    def keep_images_in(self, kind: StoreKind) -> None:
        """Says how images are kept, for a folder whose ``run.json`` is not written yet."""
        self._pictures = _image_store(kind, self.images)

    def has_image(self, image_key: str, size: int) -> bool:
        """Returns True if the image is there, whole, and of the canvas size."""
        return self.pictures.has(image_key, size)

    def write_image(self, image_key: str, image: Image.Image) -> None:
        """Stores an image as PNG, all of it or nothing; repeated runs give the same bytes."""
        stream = io.BytesIO()
        image.convert("RGB").save(stream, format="PNG", compress_level=defaults.PNG_LEVEL)
        self.pictures.write(image_key, stream.getvalue())

    def log_image(self, entry: Mapping[str, Any]) -> None:
        """Appends one line to the per-image generation log."""
        append_line(self.images_jsonl, json.dumps(entry, sort_keys=True, default=str))

    def read_image_log(self) -> dict[str, dict[str, Any]]:
        """Reads the generation log, last line per image; torn lines are skipped."""
        log: dict[str, dict[str, Any]] = {}
        if not self.images_jsonl.exists():
            return log
        for line in read_file(self.images_jsonl, None).decode("utf-8", "replace").splitlines():
            try:
                entry = json.loads(line)
                log[str(entry["image_key"])] = entry
            except (ValueError, KeyError, TypeError, RecursionError):
                logger.debug("%s: skipped a torn line", self.images_jsonl)
        return log


def _image_store(kind: StoreKind, folder: Path) -> ImageStore:
    return ImageArchives(folder) if kind == "archives" else ImageFiles(folder)
