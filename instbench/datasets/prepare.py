"""Writes a COCO-format file onto the square canvas: annotations, captions, images and a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instbench.datasets.canvas import CANVAS_RULE, scale_annotations
from instbench.datasets.home import MANIFEST_NAME
from instbench.datasets.lvis import image_file_name, is_lvis
from instbench.datasets.manifest import FileRecord, Manifest, read_manifest, write_manifest
from instbench.datasets.problems import raise_on_errors, read_json
from instbench.datasets.validation import check_annotations, check_captions
from instbench.errors import InputError
from instbench.layouts.from_coco import image_key
from instbench.progress import track
from instbench.runs.atomic import remove_temporary, sha256_file, write_bytes

__all__ = ["prepare_canvas"]

_STARTED = ".started.json"


def prepare_canvas(
    annotations: Path,
    output: Path,
    *,
    captions: Path | None = None,
    images_dir: Path | None = None,
    size: int = 512,
    name: str = "custom",
) -> Manifest:
    """Writes the ground truth of the square canvas; see `instbench.datasets.canvas` for the rule.

    The folder gets ``instances.json``, ``captions.json`` if captions are given, ``images/<image key>.png``
    if images are given (`instbench.generators.pictures.RESIZE_RULE`), and ``manifest.json``, written last.
    Equal input gives equal bytes. An interrupted call is gone on with: images that it has written are kept.

    Args:
        annotations: COCO or LVIS instances file.
        output: Folder to write.
        captions: COCO captions file.
        images_dir: Folder of the images.
        size: Side of the canvas in pixels.
        name: Name for the manifest.

    Returns:
        The manifest.

    Raises:
        InputError: If a file is bad, an image is missing or damaged, or the folder holds other data.
    """
    data = read_json(annotations)
    raise_on_errors(check_annotations(data), str(annotations))
    texts = None
    if captions is not None:
        texts = read_json(captions)
        raise_on_errors(check_captions(texts), str(captions))
    scaled, counts = scale_annotations(data, size)
    settings: dict[str, Any] = {
        "canvas_size": size,
        "rule": CANVAS_RULE,
        "annotations_sha256": sha256_file(annotations),
        "captions_sha256": None if captions is None else sha256_file(captions),
        "images": images_dir is not None,
    }
    resumed = _claim(output, settings)
    paths = [_write(output / "instances.json", scaled)]
    if texts is not None:
        paths.append(_write(output / "captions.json", texts | {"images": scaled["images"]}))
    if images_dir is not None:
        paths += _write_images(data, images_dir, output / "images", size, keep=resumed)
    manifest = Manifest(
        name=name,
        kind="canvas",
        counts=asdict(counts),
        settings=settings,
        files=tuple(_record(path, output) for path in sorted(paths)),
    )
    write_manifest(output, manifest)
    (output / _STARTED).unlink()
    return manifest


def _claim(output: Path, settings: Mapping[str, Any]) -> bool:
    """Makes sure that the folder is ours to write; returns whether it holds an interrupted call."""
    started = output / _STARTED
    interrupted = started.is_file()
    if (output / MANIFEST_NAME).is_file():
        found: Any = read_manifest(output).settings
    elif interrupted:
        found = read_json(started)
    elif output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output}: holds other files; choose an empty folder")
    else:
        output.mkdir(parents=True, exist_ok=True)
        found = settings
    if found != settings:
        raise InputError(f"{output}: holds data of other settings; choose an empty folder")
    write_bytes(started, json.dumps(settings, sort_keys=True).encode())
    remove_temporary(output)
    return interrupted


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    try:
        text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    except (ValueError, RecursionError):  # in a field that nothing here reads
        raise InputError(
            f"{path}: the source holds NaN, infinity or too deep nesting; remove it there"
        ) from None
    write_bytes(path, text.encode("ascii"))
    return path


def _write_images(
    data: Mapping[str, Any], images_dir: Path, target: Path, size: int, *, keep: bool
) -> list[Path]:
    from instbench.generators.pictures import open_picture, to_canvas
    from instbench.runs.atomic import atomic_path

    lvis = is_lvis(data)
    target.mkdir(exist_ok=True)
    remove_temporary(target)
    base = images_dir.resolve()
    paths = []
    for record in track(data["images"], description="resizing images"):
        name = image_file_name(record, lvis=lvis)
        if name is None:
            raise InputError(f"image {record['id']}: has no file_name; it cannot be found in {images_dir}")
        source = images_dir / name
        if not source.resolve().is_relative_to(base):
            raise InputError(
                f"image {record['id']}: file_name {name!r} leads out of {images_dir}; remove the link"
            )
        path = target / f"{image_key(record['id'])}.png"
        if not (keep and path.is_file()):
            picture = to_canvas(open_picture(source), size)
            with atomic_path(path) as temporary:
                picture.save(temporary, format="PNG", compress_level=1)
        paths.append(path)
    return paths


def _record(path: Path, folder: Path) -> FileRecord:
    return FileRecord(
        path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256_file(path)
    )
