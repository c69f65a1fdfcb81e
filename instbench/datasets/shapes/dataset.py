"""Shapes scenes as a COCO-format dataset, in memory or exported to a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from instbench.datasets.shapes.captions import object_phrases, scene_captions
from instbench.datasets.shapes.render import render
from instbench.datasets.shapes.scenes import Scene, sample_scene, scene_seed
from instbench.datasets.shapes.world import SPLITS, WorldSpec, get_world
from instbench.errors import InputError

__all__ = ["ShapesDataset", "export_coco", "shapes_dataset"]

_SPLIT_OFFSETS = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
_WORLD_OFFSET = 10_000_000


class ShapesDataset:
    """A split of a Shapes world, made on demand; the same on every machine.

    Args:
        world: The world.
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: Number of scenes; the first ``count`` of the endless sequence of this split.
    """

    def __init__(self, world: WorldSpec, split: str, count: int) -> None:
        self.world = world
        self.split = split
        self.count = count
        self._first_id = world.world_id * _WORLD_OFFSET + _SPLIT_OFFSETS[split]

    @property
    def name(self) -> str:
        """Dataset name as layouts carry it, e.g. ``"shapes-val"``."""
        return f"{self.world.name}-{self.split}"

    @property
    def image_ids(self) -> range:
        """Ids of the scenes in order."""
        return range(self._first_id, self._first_id + self.count)

    def scene(self, image_id: int) -> Scene:
        """The scene behind an image id.

        Raises:
            InputError: If the id is not part of this split.
        """
        if image_id not in self.image_ids:
            raise InputError(
                f"{self.name}: image id {image_id} is not one of {self._first_id}.."
                f"{self._first_id + self.count - 1}; check world, split and count"
            )
        index = image_id - self._first_id
        return sample_scene(self.world, scene_seed(self.world, self.split, index))

    def image(self, image_id: int) -> Image.Image:
        """The rendered picture, RGB, canvas size."""
        return Image.fromarray(render(self.scene(image_id)))

    @cached_property
    def _records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        scenes = ((image_id, self.scene(image_id)) for image_id in self.image_ids)
        return _coco_records(self, scenes)

    @property
    def annotations(self) -> dict[str, Any]:
        """COCO ``instances`` dict; annotations also carry ``attributes`` and ``captions``."""
        return self._records[0]

    @property
    def captions(self) -> dict[str, Any]:
        """COCO ``captions`` dict, four captions per image, from full to bare."""
        return self._records[1]


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.png"


def _scene_annotations(scene: Scene, image_id: int) -> Iterator[dict[str, Any]]:
    encoded = coco_mask.encode(np.asfortranarray(scene.masks.transpose(1, 2, 0).astype(np.uint8)))
    areas, boxes = coco_mask.area(encoded), coco_mask.toBbox(encoded)
    for position, item in enumerate(scene.objects):
        rle = encoded[position]
        yield {
            "id": image_id * 10 + position,
            "image_id": image_id,
            "category_id": 0,  # set by the caller, who knows the world
            "category_name": item.shape,
            "bbox": [float(value) for value in boxes[position]],
            "area": float(areas[position]),
            "iscrowd": 0,
            "segmentation": {
                "size": [int(side) for side in rle["size"]],
                "counts": rle["counts"].decode("ascii"),
            },
            "attributes": {"color": item.color, "texture": item.texture},
            "captions": object_phrases(item),
        }


def _coco_records(
    dataset: ShapesDataset, scenes: Iterator[tuple[int, Scene]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    size = dataset.world.canvas_size
    category_ids = {name: position + 1 for position, name in enumerate(dataset.world.shapes)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for image_id, scene in scenes:
        images.append({"id": image_id, "file_name": _file_name(image_id), "width": size, "height": size})
        for annotation in _scene_annotations(scene, image_id):
            annotation["category_id"] = category_ids[annotation.pop("category_name")]
            annotations.append(annotation)
        captions.extend(
            {"id": image_id * 10 + level, "image_id": image_id, "caption": text}
            for level, text in enumerate(scene_captions(scene.objects, scene.background))
        )
    info = {"description": f"{dataset.name}, {dataset.count} scenes", "version": "1"}
    instances = {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": dataset.world.categories,
    }
    return instances, {"info": info, "licenses": [], "images": images, "annotations": captions}


@lru_cache(maxsize=8)
def _cached_dataset(world: str, split: str, count: int) -> ShapesDataset:
    return ShapesDataset(get_world(world), split, count)


def shapes_dataset(world: str = "shapes", split: str = "val", count: int | None = None) -> ShapesDataset:
    """A split of a world by name; repeated calls share one object.

    Args:
        world: ``"shapes"`` or ``"shapes-hard"``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        count: Number of scenes; None takes the default of the split.

    Raises:
        InputError: If the world or split is unknown, or the count is not positive.
    """
    if split not in SPLITS:
        raise InputError(f"unknown Shapes split {split!r} (splits: {', '.join(SPLITS)})")
    count = SPLITS[split] if count is None else count
    if not 0 < count <= 999_999:
        raise InputError(f"Shapes split {split!r}: count must be between 1 and 999999, not {count}")
    return _cached_dataset(get_world(world).name, split, count)


def export_coco(world: str, split: str, count: int | None, directory: Path) -> Path:
    """Writes a split as a COCO-format folder: ``images/*.png``, ``instances.json``, ``captions.json``.

    A folder that is already complete is left alone; an incomplete one (marked ``STARTED``, not yet ``DONE``)
    is continued.

    Args:
        world: World name.
        split: Split name.
        count: Number of scenes; None takes the default of the split.
        directory: Target folder, made if missing.

    Returns:
        The folder.

    Raises:
        InputError: If the folder holds another export or other files, or an argument is wrong.
    """
    from instbench.progress import track  # deferred: rich is not needed for anything else here

    dataset = shapes_dataset(world, split, count)
    started, stamp = directory / "STARTED", directory / "DONE"
    label = f"{dataset.name} {dataset.count}\n"
    for mark in (stamp, started):
        if mark.exists():
            found = mark.read_text(encoding="utf-8")
            if found != label:
                raise InputError(
                    f"{directory}: holds another export ({found.strip()}); choose an empty folder"
                )
            if mark == stamp:
                return directory
            break
    else:
        if directory.is_dir() and any(directory.iterdir()):
            raise InputError(f"{directory}: holds other files; choose an empty folder")
        directory.mkdir(parents=True, exist_ok=True)
        started.write_text(label, encoding="utf-8")
    (directory / "images").mkdir(parents=True, exist_ok=True)

    def painted() -> Iterator[tuple[int, Scene]]:
        for image_id in track(dataset.image_ids, description=f"rendering {dataset.name}"):
            scene = dataset.scene(image_id)
            path = directory / "images" / _file_name(image_id)
            if not path.exists():
                partial = path.with_suffix(".part")
                Image.fromarray(render(scene)).save(partial, format="PNG", compress_level=1)
                partial.replace(path)
            yield image_id, scene

    instances, captions = _coco_records(dataset, painted())
    for name, content in (("instances.json", instances), ("captions.json", captions)):
        partial = directory / f"{name}.part"
        with partial.open("w", encoding="utf-8") as handle:
            json.dump(content, handle, separators=(",", ":"))
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(directory / name)
    started.replace(stamp)
    return directory
