"""Where fetched data lie, and the files of a data set by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from instbench.datasets.catalog import get_dataset
from instbench.errors import InputError

__all__ = ["ENVIRONMENT_VARIABLE", "MANIFEST_NAME", "DatasetPaths", "data_home", "dataset_paths"]

ENVIRONMENT_VARIABLE = "INSTBENCH_DATA"
MANIFEST_NAME = "manifest.json"
"""Written last, so a folder that has one is complete."""


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """The files of a data set on this machine.

    Attributes:
        annotations: Instances file.
        captions: Captions file, or None if the data set has none.
        images: Folder against which the images' names are meant, or None if they were not fetched.
    """

    annotations: Path
    captions: Path | None
    images: Path | None


def data_home() -> Path:
    """The folder that holds one folder per fetched data set.

    ``$INSTBENCH_DATA`` if it is set; else ``instbench/data`` in the user's cache folder: ``~/.cache`` (or
    ``$XDG_CACHE_HOME``) on Linux, ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` (plus ``Cache``) on
    Windows. It need not exist.
    """
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("instbench", appauthor=False) / "data"


def dataset_paths(name: str, home: Path | None = None) -> DatasetPaths:
    """Finds the files of a fetched data set.

    Args:
        name: A name of the catalog, e.g. ``"coco-val2017"``.
        home: Folder of the data sets; None takes `data_home`.

    Returns:
        The paths. The data are not checked; ``instbench data verify NAME`` does that.

    Raises:
        InputError: If the name is unknown, or the data set is not there or not complete.
    """
    spec = get_dataset(name)
    folder = (data_home() if home is None else home) / name
    fetch = f"run `instbench data fetch {name}`"
    if not folder.is_dir():
        raise InputError(f"{folder}: data set {name} is not there; {fetch}, or set {ENVIRONMENT_VARIABLE}")
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(f"{folder}: has no {MANIFEST_NAME}, so it is not complete; {fetch}")
    annotations = folder / spec.annotations
    captions = None if spec.captions is None else folder / spec.captions
    for path in (annotations, captions):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: is missing; {fetch}")
    image_folders = {
        member.folder for archive in spec.archives if archive.holds_images for member in archive.members
    }
    has_images = all((folder / name).is_dir() for name in image_folders)
    return DatasetPaths(annotations, captions, folder / spec.images if has_images else None)
