"""Reads a COCO-format folder for training: ``images/``, ``instances.json``, ``captions.json``.

Annotations may carry ``captions`` (phrases, from full to bare) and ``attributes`` (``color``, ``texture``).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

__all__ = [
    "CocoFolder",
    "ObjectRecord",
    "SceneRecord",
    "cached_images",
    "edge_crops",
    "read_folder",
    "read_json",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectRecord:
    """One annotated object.

    Attributes:
        category: Name of the category.
        box: xyxy in pixels of the image.
        phrases: Phrases that name the object, from full to bare.
        attributes: Attribute words by kind, e.g. ``{"color": "red", "texture": "plain"}``.
    """

    category: str
    box: tuple[float, float, float, float]
    phrases: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneRecord:
    """One image with its objects and captions.

    Attributes:
        image_id: Id in the annotation file.
        path: Image file, inside the folder.
        size: ``(width, height)`` in pixels.
        objects: Objects in the order of the annotation file.
        captions: Captions in the order of the caption file.
    """

    image_id: int
    path: Path
    size: tuple[int, int]
    objects: tuple[ObjectRecord, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CocoFolder:
    """A training folder in memory, without the pixels.

    Attributes:
        root: The folder.
        scenes: Images in the order of the annotation file.
        categories: Category names in the order of their ids.
        attributes: Attribute words by kind, sorted.
    """

    root: Path
    scenes: tuple[SceneRecord, ...]
    categories: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]

    @property
    def phrases(self) -> list[str]:
        """Distinct phrases of all objects, sorted."""
        return sorted({text for scene in self.scenes for item in scene.objects for text in item.phrases})

    @property
    def captions(self) -> list[str]:
        """Distinct captions of all scenes, sorted."""
        return sorted({text for scene in self.scenes for text in scene.captions})


def read_json(path: Path) -> Any:
    """Reads a JSON file of a training folder.

    Raises:
        ValueError: If it is missing or no JSON.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a training folder has images/, instances.json and captions.json"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (line {error.lineno}); export the folder again") from error


def _image_path(root: Path, name: str) -> Path:
    images = (root / "images").resolve()
    path = (images / name).resolve()
    if not path.is_relative_to(images):
        raise ValueError(
            f"{root / 'instances.json'}: file_name {name!r} leaves the images folder; correct it"
        )
    return path


def read_folder(root: Path, limit: int | None = None) -> CocoFolder:
    """Reads a COCO-format folder.

    Args:
        root: The folder.
        limit: Only the first so many images; None means all.

    Raises:
        ValueError: If a file is missing or malformed, or a file name points outside ``images/``.
    """
    instances = read_json(root / "instances.json")
    try:
        names = {entry["id"]: str(entry["name"]) for entry in instances["categories"]}
        objects: dict[int, list[ObjectRecord]] = {}
        for entry in instances["annotations"]:
            left, top, width, height = entry["bbox"]
            record = ObjectRecord(
                category=names[entry["category_id"]],
                box=(left, top, left + width, top + height),
                phrases=tuple(entry.get("captions", ())),
                attributes=dict(entry.get("attributes", {})),
            )
            objects.setdefault(entry["image_id"], []).append(record)
        texts: dict[int, list[str]] = {}
        if (root / "captions.json").exists():
            for entry in read_json(root / "captions.json")["annotations"]:
                texts.setdefault(entry["image_id"], []).append(entry["caption"])
        scenes = tuple(
            SceneRecord(
                image_id=entry["id"],
                path=_image_path(root, entry["file_name"]),
                size=(entry["width"], entry["height"]),
                objects=tuple(objects.get(entry["id"], ())),
                captions=tuple(texts.get(entry["id"], ())),
            )
            for entry in instances["images"][:limit]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{root}: not a COCO export, missing or malformed field {error}") from error
    if not scenes:
        raise ValueError(f"{root / 'instances.json'}: holds no images; export the folder again")
    words: dict[str, set[str]] = {}
    for scene in scenes:
        for item in scene.objects:
            for kind, word in item.attributes.items():
                words.setdefault(kind, set()).add(word)
    return CocoFolder(
        root=root,
        scenes=scenes,
        categories=tuple(names[key] for key in sorted(names)),
        attributes={kind: tuple(sorted(found)) for kind, found in sorted(words.items())},
    )


def cached_images(folder: CocoFolder) -> NDArray[np.uint8]:
    """All images as one memory-mapped array, made on first use and kept as ``images.npy`` in the folder.

    Returns:
        uint8 RGB, shape ``[N, H, W, 3]``, in the order of ``folder.scenes``.

    Raises:
        ValueError: If the images differ in size from the first one.
    """
    width, height = folder.scenes[0].size
    shape = (len(folder.scenes), height, width, 3)
    path = folder.root / f"images-{len(folder.scenes)}.npy"
    if path.exists():
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.shape == shape:
            return images
    partial = path.with_suffix(".part")
    memory = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    for position, scene in enumerate(track(folder.scenes, description="caching images", transient=True)):
        with Image.open(scene.path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        if pixels.shape != shape[1:]:
            raise ValueError(
                f"{scene.path}: {pixels.shape[1]}x{pixels.shape[0]} px, the first image has {width}x{height}; "
                "training folders hold images of one size"
            )
        memory[position] = pixels
    memory.flush()
    partial.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def edge_crops(
    folder: CocoFolder,
    images: NDArray[np.uint8],
    indices: NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
    *,
    align: int = 1,
    edge_share: float = 0.8,
) -> NDArray[np.uint8]:
    """Square crops, most of them centred near the outline of an object.

    Args:
        folder: The folder that the images belong to.
        images: uint8 ``[N, H, W, 3]``.
        indices: Images to crop, one crop each.
        size: Side of the crops in pixels.
        rng: Source of all choices.
        align: Offsets are multiples of this, so that crops keep the phase of an autoencoder's cells.
        edge_share: Share of the crops centred on a random point of the outline of a random object's box;
            the others are uniform.

    Returns:
        uint8 ``[len(indices), size, size, 3]``.
    """
    height, width = images.shape[1:3]
    limits = np.array([width - size, height - size])
    crops = np.empty((len(indices), size, size, 3), np.uint8)
    for row, index in enumerate(indices):
        objects = folder.scenes[index].objects
        if objects and rng.random() < edge_share:
            x1, y1, x2, y2 = objects[rng.integers(len(objects))].box
            along = rng.random()
            side = rng.integers(4)
            horizontal = x1 + along * (x2 - x1), (y1, y2)[side % 2]
            vertical = (x1, x2)[side % 2], y1 + along * (y2 - y1)
            corner = np.array(horizontal if side < 2 else vertical) - size / 2
        else:
            corner = rng.random(2) * (limits + align) - align / 2
        left, top = (np.clip(np.round(corner / align), 0, limits // align) * align).astype(int)
        crops[row] = images[index, top : top + size, left : left + size]
    return crops
