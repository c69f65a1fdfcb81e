"""Scenes of a COCO-format folder in memory, as the training recipes need them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from instbench.errors import InputError

__all__ = ["SceneObjects", "SceneSet", "concatenate", "load_scenes"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SceneObjects:
    """The objects of one scene, in annotation order.

    Attributes:
        boxes_xyxy: float32 [n, 4], pixels.
        categories: Category name per object.
        colors: Colour word per object.
        textures: Texture word per object.
    """

    boxes_xyxy: NDArray[np.float32]
    categories: tuple[str, ...]
    colors: tuple[str, ...]
    textures: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.categories)


@dataclass(frozen=True, slots=True)
class SceneSet:
    """Scenes of one size.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        instance_maps: uint8 [N, H, W]; 0 is background, i + 1 the i-th object of the scene.
        objects: The objects of every scene.
        backgrounds: Background words of every scene, out of its caption ("... on a WORDS background");
            empty where the data names none.
        categories: All category names of the data, in category id order.
        image_ids: COCO image ids.
    """

    images: NDArray[np.uint8]
    instance_maps: NDArray[np.uint8]
    objects: tuple[SceneObjects, ...]
    backgrounds: tuple[str, ...]
    categories: tuple[str, ...]
    image_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.objects)


def load_scenes(folder: Path | str, limit: int | None = None) -> SceneSet:
    """Reads ``instances.json`` and ``images/`` of a COCO-format folder.

    Args:
        folder: The folder; file names in the annotations are taken relative to ``images/``.
        limit: Number of scenes, from the first; all by default.

    Returns:
        The scenes.

    Raises:
        InputError: A file is missing or unreadable, an annotation lacks a field, or the images
            differ in size.
    """
    folder = Path(folder)
    source = folder / "instances.json"
    data = _read_json(source)
    names = {int(c["id"]): str(c["name"]) for c in sorted(data["categories"], key=lambda c: int(c["id"]))}
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for annotation in data["annotations"]:
        if not annotation.get("iscrowd", 0):
            by_image.setdefault(int(annotation["image_id"]), []).append(annotation)
    infos = data["images"][:limit]
    if not infos:
        raise InputError(f"{source}: field images is empty; nothing to train on")
    height, width = int(infos[0]["height"]), int(infos[0]["width"])
    images = np.zeros((len(infos), height, width, 3), np.uint8)
    maps = np.zeros((len(infos), height, width), np.uint8)
    objects: list[SceneObjects] = []
    for index, info in enumerate(infos):
        images[index] = _read_image(folder, info, (height, width))
        annotations = by_image.get(int(info["id"]), [])
        for number, annotation in enumerate(annotations, start=1):
            maps[index][_decode(annotation, height, width, source)] = number
        objects.append(_objects(annotations, names, source))
    backgrounds = _backgrounds(folder / "captions.json")
    logger.info("%s: %d scenes of %dx%d", folder, len(infos), width, height)
    return SceneSet(
        images=images,
        instance_maps=maps,
        objects=tuple(objects),
        backgrounds=tuple(backgrounds.get(int(info["id"]), "") for info in infos),
        categories=tuple(names.values()),
        image_ids=tuple(int(info["id"]) for info in infos),
    )


def concatenate(sets: Sequence[SceneSet]) -> SceneSet:
    """Joins scene sets of one size; image ids are numbered anew, categories united in order."""
    sizes = {s.images.shape[1:3] for s in sets}
    if len(sizes) != 1:
        raise InputError(
            f"--data: folders hold images of different sizes ({sorted(sizes)}); train on one size"
        )
    categories = tuple(dict.fromkeys(name for s in sets for name in s.categories))
    return SceneSet(
        images=np.concatenate([s.images for s in sets]),
        instance_maps=np.concatenate([s.instance_maps for s in sets]),
        objects=tuple(o for s in sets for o in s.objects),
        backgrounds=tuple(b for s in sets for b in s.backgrounds),
        categories=categories,
        image_ids=tuple(range(sum(len(s) for s in sets))),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; --data takes a folder with instances.json and images/"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: unreadable ({error}); write it again") from error
    return data


def _backgrounds(path: Path) -> dict[int, str]:
    if not path.exists():
        return {}
    found: dict[int, str] = {}
    for row in _read_json(path)["annotations"]:
        match = re.search(r" on an? ([a-z ]+) background$", str(row["caption"]))
        if match:
            found[int(row["image_id"])] = match[1]
    return found


def _read_image(folder: Path, info: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    root = (folder / "images").resolve()
    path = (root / str(info["file_name"])).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"{folder}/instances.json: image {info['id']}: file_name leaves the images folder")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            f"{path}: image {info['id']} is missing or unreadable ({error}); export it again"
        ) from error
    if pixels.shape[:2] != size:
        raise InputError(
            f"{path}: size {pixels.shape[1]}x{pixels.shape[0]}, not {size[1]}x{size[0]}; use one size"
        )
    return pixels


def _decode(annotation: Mapping[str, Any], height: int, width: int, source: Path) -> NDArray[np.bool_]:
    from pycocotools import mask as coco_mask

    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, height, width)
        mask = coco_mask.decode(segmentation).astype(bool)
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{source}: annotation {annotation.get('id')}: field segmentation is unreadable"
        ) from error
    if mask.shape != (height, width):
        raise InputError(
            f"{source}: annotation {annotation.get('id')}: mask size {mask.shape}, image {(height, width)}"
        )
    return mask


def _objects(
    annotations: Sequence[Mapping[str, Any]], names: Mapping[int, str], source: Path
) -> SceneObjects:
    boxes: list[list[float]] = []
    words: list[tuple[str, str, str]] = []
    for annotation in annotations:
        try:
            x, y, w, h = (float(v) for v in annotation["bbox"])
            attributes = annotation["attributes"]
            words.append(
                (names[int(annotation["category_id"])], str(attributes["color"]), str(attributes["texture"]))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source}: annotation {annotation.get('id')}: bad or missing field ({error}); "
                "needs bbox, category_id and attributes {color, texture}"
            ) from error
        boxes.append([x, y, x + w, y + h])
    return SceneObjects(
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
        categories=tuple(w[0] for w in words),
        colors=tuple(w[1] for w in words),
        textures=tuple(w[2] for w in words),
    )
