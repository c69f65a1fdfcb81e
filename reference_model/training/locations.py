"""What training needs of a COCO-format folder besides pixels, computed once and kept in the folder.

Rules for data that differs from the ideal:

* crowds are left out;
* a box is cut at the canvas; what is left of it must have an area, and at least ``min_area`` of the canvas;
* polygons, run lengths and compressed run lengths are read; an annotation without a mask (or whose mask is
  empty on the canvas) can show a box and a point only;
* an annotation without words of its own is named by its category;
* an image without caption is described by its objects, "2 dog, 1 cat", the largest first, thirty at most
  (the published rule for detection data, ``make_a_sentence_count_nums`` of `dataset/decode_item.py` with
  ``--count_dup true`` of the README's training command).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from reference_model.points import mask_points_from_mask
from reference_model.training.canvas import Canvas
from reference_model.training.data import read_json

__all__ = ["NAME_LEVEL", "NUM_LEVELS", "NUM_MASK_POINTS", "Locations", "build_location_cache"]

logger = logging.getLogger(__name__)

NUM_MASK_POINTS = 256
NUM_LEVELS = 4
NAME_LEVEL = NUM_LEVELS
_DESCRIBED = 30


@dataclass(frozen=True)
class Locations:
    """The cache in memory. Instances are ordered by image, then by annotation id.

    Attributes:
        size: ``(height, width)`` of the canvas in pixels.
        boxes: float32 [I, 4] xyxy relative to the canvas.
        points: float32 [I, 2] relative; a point inside the mask near the centre of the box.
        mask_points: float16 [I, 256, 2] relative; zeros without a mask.
        starts: int [N + 1]; image n owns the instances ``starts[n]`` to ``starts[n + 1] - 1``.
        phrase_ids: int [I, 5] into `phrases`: four levels from full to bare, then the category's name.
        caption_starts: int [N + 1]; image n owns ``caption_ids[caption_starts[n] : caption_starts[n + 1]]``.
        caption_ids: int into `captions`.
        phrases: Distinct phrases; the first is empty.
        captions: Distinct captions; the first is empty.
        rle_starts: int [I + 1] into `rle`.
        rle: uint8, compressed run lengths of all masks on the canvas, end to end; empty without a mask.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    mask_points: NDArray[np.float16]
    starts: NDArray[np.int64]
    phrase_ids: NDArray[np.int64]
    caption_starts: NDArray[np.int64]
    caption_ids: NDArray[np.int64]
    phrases: list[str]
    captions: list[str]
    rle_starts: NDArray[np.int64]
    rle: NDArray[np.uint8]

    @classmethod
    def load(cls, path: Path) -> Locations:
        """Reads the file that `build_location_cache` wrote."""
        with np.load(path, allow_pickle=False) as cache:
            arrays = {name: cache[name] for name in cache.files}
        height, width = map(int, arrays.pop("size"))
        phrases, captions = _unpacked(arrays.pop("phrases")), _unpacked(arrays.pop("captions"))
        return cls(size=(height, width), phrases=phrases, captions=captions, **arrays)

    def instances_of(self, image: int) -> NDArray[np.int64]:
        """Rows of an image's instances, int [K]."""
        return np.arange(self.starts[image], self.starts[image + 1])

    def captions_of(self, image: int) -> NDArray[np.int64]:
        """Rows of an image's captions in `captions`, int [K], at least one."""
        return self.caption_ids[self.caption_starts[image] : self.caption_starts[image + 1]]

    @cached_property
    def has_mask(self) -> NDArray[np.bool_]:
        """Which instances have a mask, bool [I]."""
        return np.diff(self.rle_starts) > 0

    def masks(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Masks of some instances on the canvas, ``[len(rows), height, width]``; zeros without a mask."""
        masks = np.zeros((len(rows), *self.size), dtype=np.uint8)
        for position, row in enumerate(rows):
            counts = self.rle[self.rle_starts[row] : self.rle_starts[row + 1]].tobytes()
            if counts:
                masks[position] = coco_mask.decode({"size": list(self.size), "counts": counts})
        return masks


def _packed(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Texts as bytes, each ended by a zero; numpy's own strings would all be as long as the longest."""
    return np.frombuffer(b"".join(text.replace("\0", " ").encode() + b"\0" for text in texts), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> list[str]:
    return packed.tobytes().decode().split("\0")[:-1]


def _central_point(mask: NDArray[np.uint8], box: NDArray[np.float32]) -> tuple[float, float]:
    """Centre of the box if it lies in the mask, else the nearest mask pixel; pixels."""
    center_x, center_y = box[0] + box[2] / 2, box[1] + box[3] / 2
    column, row = min(int(center_x), mask.shape[1] - 1), min(int(center_y), mask.shape[0] - 1)
    if mask[row, column]:
        return float(center_x), float(center_y)
    rows, columns = np.nonzero(mask)
    nearest = int(np.argmin((columns + 0.5 - center_x) ** 2 + (rows + 0.5 - center_y) ** 2))
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5


def _mask_points(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Points that stand for a mask, pixels [256, 2]; computed on the mask's window, which is faster."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    window = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    flat = mask_points_from_mask(window, NUM_MASK_POINTS, rng=random.Random(0))
    if flat is None:
        raise ValueError("mask_points: the mask is empty")
    points = np.asarray(flat, dtype=np.float64).reshape(-1, 2) + np.array([left, top])
    return points[np.argsort(np.hypot(points[:, 0], points[:, 1]), kind="stable")]


def _decoded(segmentation: Any, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Mask ``[height, width]`` of an annotation, or None if it has none.

    Args:
        segmentation: Polygons, run lengths or compressed run lengths.
        size: ``(width, height)`` of the image.
    """
    if not segmentation:
        return None
    width, height = size
    if isinstance(segmentation, list):
        lengths = {len(polygon) for polygon in segmentation}
        if any(length < 6 or length % 2 for length in lengths):
            raise ValueError("a polygon needs three points or more, x and y in turn")
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    else:
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"a mask of {segmentation['size']}, the image has [{height}, {width}]")
        packed = isinstance(segmentation["counts"], str | bytes)
        rle = segmentation if packed else coco_mask.frPyObjects(segmentation, height, width)
    return np.ascontiguousarray(coco_mask.decode(rle))


class _Builder:
    """Collects the arrays of the cache, annotation by annotation."""

    def __init__(self, names: Mapping[int, str], side: int | None, min_area: float) -> None:
        self.names, self.side, self.min_area = names, side, min_area
        self.phrases: dict[str, int] = {"": 0}
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("boxes", "points", "mask_points", "phrase_ids", "rle")
        }
        self.owners: list[int] = []
        self.objects: list[str] = []
        self.too_small = 0

    def add(self, annotation: Mapping[str, Any], image: int, size: tuple[int, int]) -> None:
        """Adds one annotation of an image of `size` (width, height)."""
        canvas = Canvas(size, self.side)
        x, y, w, h = annotation["bbox"]
        box = canvas.box(x, y, w, h)
        area = (box[2] - box[0]) * (box[3] - box[1])
        if area <= 0 or area < self.min_area:
            self.too_small += 1
            return
        width, height = canvas.size
        mask = _decoded(annotation.get("segmentation"), size)
        mask = None if mask is None else np.ascontiguousarray(canvas.mask(mask))
        point = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        mask_points, counts = np.zeros((NUM_MASK_POINTS, 2), dtype=np.float16), b""
        if mask is not None and mask.any():
            frame = (x, y, w, h)
            if self.side is not None:
                frame = (
                    box[0] * width,
                    box[1] * height,
                    (box[2] - box[0]) * width,
                    (box[3] - box[1]) * height,
                )
            column, row = _central_point(mask, np.asarray(frame, dtype=np.float32))
            point = (column / width, row / height)
            mask_points = np.minimum(_mask_points(mask) / (width, height), 1.0).astype(np.float16)
            counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
        name = self.names[annotation["category_id"]]
        texts = annotation.get("captions") or [annotation.get("caption") or name]
        levels = [texts[min(level, len(texts) - 1)] for level in range(NUM_LEVELS)]
        row_of = {
            "boxes": box,
            "points": point,
            "mask_points": mask_points,
            "phrase_ids": [self.phrases.setdefault(text, len(self.phrases)) for text in levels],
            "rle": counts,
        }
        for key, value in row_of.items():
            self.columns[key].append(value)
        self.owners.append(image)
        self.objects.append(name)

    def arrays(self, num_images: int) -> dict[str, NDArray[Any]]:
        """The arrays of `Locations`, captions apart."""
        name_ids = [self.phrases.setdefault(name, len(self.phrases)) for name in self.objects]
        levels = np.asarray(self.columns["phrase_ids"], dtype=np.int64).reshape(-1, NUM_LEVELS)
        lengths = [len(counts) for counts in self.columns["rle"]]
        return {
            "boxes": np.asarray(self.columns["boxes"], dtype=np.float32).reshape(-1, 4),
            "points": np.asarray(self.columns["points"], dtype=np.float32).reshape(-1, 2),
            "mask_points": np.asarray(self.columns["mask_points"], dtype=np.float16).reshape(
                -1, NUM_MASK_POINTS, 2
            ),
            "starts": np.searchsorted(np.asarray(self.owners, dtype=np.int64), np.arange(num_images + 1)),
            "phrase_ids": np.column_stack([levels, np.asarray(name_ids, dtype=np.int64)]),
            "phrases": _packed(self.phrases),
            "rle_starts": np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            "rle": np.frombuffer(b"".join(self.columns["rle"]), dtype=np.uint8),
        }

    def described(self, first: int, last: int) -> str:
        """Words for an image without a caption from its instances ``first`` to ``last - 1``."""
        boxes = np.asarray(self.columns["boxes"][first:last], dtype=np.float64).reshape(-1, 4)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        largest = np.argsort(-areas, kind="stable")[:_DESCRIBED]
        counted = Counter(self.objects[first + int(position)] for position in largest)
        return ", ".join(f"{count} {name}" for name, count in counted.items())


def _captions(
    entries: Sequence[Mapping[str, Any]], positions: Mapping[int, int], fallback: Any
) -> dict[str, NDArray[Any]]:
    table: dict[str, int] = {"": 0}
    owned: list[list[int]] = [[] for _ in positions]
    for entry in entries:
        text = str(entry["caption"]).strip("\n")
        owned[positions[entry["image_id"]]].append(table.setdefault(text, len(table)))
    for image, rows in enumerate(owned):
        if not rows:
            rows.append(table.setdefault(fallback(image), len(table)))
    return {
        "caption_starts": np.concatenate([[0], np.cumsum([len(rows) for rows in owned])]).astype(np.int64),
        "caption_ids": np.asarray([row for rows in owned for row in rows], dtype=np.int64),
        "captions": _packed(table),
    }


def build_location_cache(folder: Path, side: int | None = None, min_area: float = 0.0) -> Path:
    """Computes boxes, points, mask points, masks and words of a COCO-format folder once.

    Args:
        folder: Folder with ``instances.json`` and, if there are captions, ``captions.json``.
        side: Side of the square canvas, see `Canvas`; None keeps images as they are.
        min_area: Smallest share of the canvas that a box covers; smaller instances are left out.

    Returns:
        The cache file in the folder (made if missing), for `Locations.load`.

    Raises:
        ValueError: If the annotations are malformed, or images differ in size and no side is given.
    """
    suffix = "" if side is None and not min_area else f"-{side or 'full'}-{min_area:g}"
    target = folder / f"locations-2{suffix}.npz"
    if target.exists():
        return target
    path = folder / "instances.json"
    content = read_json(path)
    captions = folder / "captions.json"
    try:
        entries = read_json(captions)["annotations"] if captions.exists() else []
        if not content["images"]:
            raise ValueError(f"{path}: holds no images; export the folder again")
        sizes = [(int(image["width"]), int(image["height"])) for image in content["images"]]
        positions = {image["id"]: index for index, image in enumerate(content["images"])}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        order = sorted(
            (annotation for annotation in content["annotations"] if not annotation.get("iscrowd")),
            key=lambda annotation: (positions[annotation["image_id"]], annotation["id"]),
        )
        if side is None and len(set(sizes)) > 1:
            raise ValueError(
                f"{path}: images differ in size; set the side of a square canvas (--set image_size=512)"
            )
        builder = _Builder(names, side, min_area)
        for annotation in order:
            image = positions[annotation["image_id"]]
            try:
                builder.add(annotation, image, sizes[image])
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}: annotation {annotation['id']}: {error}; correct it") from None
        arrays = builder.arrays(len(sizes))
        starts = arrays["starts"]
        arrays |= _captions(
            entries, positions, lambda image: builder.described(int(starts[image]), int(starts[image + 1]))
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: not a COCO export, missing or malformed field {error}") from error
    if builder.too_small:
        logger.info("%s: %d instances have no room on the canvas and are left out", path, builder.too_small)
    width, height = Canvas(sizes[0], side).size
    partial = target.with_suffix(".part.npz")
    arrays["size"] = np.asarray([height, width])
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(target)
    return target
