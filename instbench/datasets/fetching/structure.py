"""Whether unpacked data are what the catalog says: counts of records, and one file per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instbench.datasets.catalog import DatasetSpec
from instbench.datasets.fetching.unzip import ExtractedFile
from instbench.datasets.lvis import image_file_name, is_lvis
from instbench.datasets.validation import read_json
from instbench.errors import InputError

__all__ = ["check_structure", "listed_images"]


def listed_images(folder: Path, spec: DatasetSpec) -> frozenset[str]:
    """Paths of the images that the annotations list, inside the data set's folder.

    Raises:
        InputError: If the annotations are unreadable or an image has no usable name.
    """
    return _image_paths(_annotations(folder, spec), folder / spec.annotations, spec)


def check_structure(
    folder: Path, spec: DatasetSpec, files: Sequence[ExtractedFile], *, with_images: bool
) -> dict[str, int]:
    """Compares unpacked files with the catalog.

    Args:
        folder: Folder with the files.
        spec: What must be there.
        files: What was unpacked.
        with_images: Whether the images must be there.

    Returns:
        Numbers of records, e.g. ``{"images": 5000, "annotations": 36781}``.

    Raises:
        InputError: If a file, record or image is missing or one too many; names the file.
    """
    there = {file.path for file in files}
    for required in (spec.annotations, spec.captions):
        if required is not None and required not in there:
            raise InputError(
                f"{spec.name}: {required} is not in the archives; fetch again or from another mirror"
            )
    data = _annotations(folder, spec)
    counts = {key: len(data[key]) for key in ("images", "annotations", "categories")}
    if spec.captions is not None:
        captions = read_json(folder / spec.captions)
        if not isinstance(captions, dict) or not isinstance(captions.get("annotations"), list):
            raise InputError(f"{spec.name}: {spec.captions}: field annotations: must be a list")
        counts["captions"] = len(captions["annotations"])
    for key, expected in spec.counts.items():
        if counts.get(key) != expected:
            raise InputError(
                f"{spec.name}: holds {counts.get(key)} {key}, not {expected}; this is another version of the data"
            )
    if with_images:
        listed = _image_paths(data, folder / spec.annotations, spec)
        missing = sorted(listed - there)
        if missing:
            raise InputError(
                f"{spec.name}: {len(missing)} images are missing, the first: {missing[0]}; "
                "fetch again or from another mirror"
            )
    return counts


def _annotations(folder: Path, spec: DatasetSpec) -> dict[str, Any]:
    path = folder / spec.annotations
    data = read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{path}: field {key}: must be a list; this is no instances file")
    return dict(data)


def _image_paths(data: dict[str, Any], source: Path, spec: DatasetSpec) -> frozenset[str]:
    lvis = is_lvis(data)
    paths = set()
    for position, record in enumerate(data["images"]):
        name = image_file_name(record, lvis=lvis) if isinstance(record, dict) else None
        if name is None:
            raise InputError(f"{source}: images[{position}]: has no usable file_name or coco_url")
        paths.add(name if spec.images == "." else f"{spec.images}/{name}")
    return frozenset(paths)
