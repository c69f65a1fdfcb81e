"""Training samples of the grounded UNet: cached latents, text embeddings and instance locations.

A sample is an image of a COCO-format folder. Per sample a rule decides what the model is shown
(`FormatRules`); the tensors have the names and shapes that `UniFusion` takes.
"""

from __future__ import annotations

import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from reference_model.instance_masks import cells_from_boxes, cells_from_masks, cells_from_points
from reference_model.points import mask_points_from_mask

__all__ = ["FORMATS", "FormatRules", "GroundedBatch", "GroundedDataset", "build_location_cache"]

logger = logging.getLogger(__name__)

FORMATS = ("box", "point", "scribble", "mask")
NUM_SCRIBBLE_POINTS = 20
NUM_MASK_POINTS = 256


@dataclass(frozen=True)
class FormatRules:
    """What a training sample shows; the probabilities of the first four cases, the rest is `keep_only`.

    Attributes:
        unconditional: Empty caption, no instances (for classifier-free guidance).
        text_only: Caption without instances, so that grounding can be switched off.
        no_caption: Instances with an empty caption.
        all_formats: Every instance shows all four formats.
        random_subset: Every instance shows its own non-empty random subset of the formats (hybrid).
        keep_only: Weights of box, point, scribble and mask where all instances show one format.
        full_phrase: Probability that phrases and caption have full detail; else one of the shorter
            levels, the same for the whole sample.
    """

    unconditional: float = 0.08
    text_only: float = 0.08
    no_caption: float = 0.05
    all_formats: float = 0.08
    random_subset: float = 0.10
    keep_only: tuple[float, float, float, float] = (0.30, 0.22, 0.24, 0.24)
    full_phrase: float = 0.7


@dataclass
class GroundedBatch:
    """A batch on one device.

    Attributes:
        latents: float [B, C, h, w].
        context: float [B, 77, D], token states of the caption.
        grounding: Keyword arguments of `UniFusion` (with ``format_masks``).
        instance_masks: bool [B, N, h, w] on the latent grid.
    """

    latents: Tensor
    context: Tensor
    grounding: dict[str, Any]
    instance_masks: Tensor


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


def build_location_cache(folder: Path) -> Path:
    """Computes boxes, points, mask points and packed masks of a COCO-format folder once.

    Args:
        folder: Folder with ``instances.json`` and ``captions.json``; all images have one size.

    Returns:
        The cache file ``locations.npz`` in the folder (made if missing).
    """
    target = folder / "locations.npz"
    if target.exists():
        return target
    instances = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    position = {image["id"]: index for index, image in enumerate(instances["images"])}
    order = sorted(
        (annotation for annotation in instances["annotations"] if not annotation.get("iscrowd")),
        key=lambda annotation: (position[annotation["image_id"]], annotation["id"]),
    )
    names = {category["id"]: category["name"] for category in instances["categories"]}
    phrase_table: dict[str, int] = {"": 0}
    boxes, points, polygons, packed, owners, phrase_ids = [], [], [], [], [], []
    for annotation in order:
        mask = np.ascontiguousarray(coco_mask.decode(annotation["segmentation"]))
        height, width = mask.shape
        x, y, w, h = annotation["bbox"]
        boxes.append((x / width, y / height, (x + w) / width, (y + h) / height))
        column, row = _central_point(mask, np.asarray(annotation["bbox"], dtype=np.float32))
        points.append((column / width, row / height))
        polygons.append((_mask_points(mask) / (width, height)).astype(np.float16).reshape(-1))
        packed.append(np.packbits(mask))
        owners.append(position[annotation["image_id"]])
        texts = annotation.get("captions") or [annotation.get("caption") or names[annotation["category_id"]]]
        levels = [texts[min(level, len(texts) - 1)] for level in range(4)]
        phrase_ids.append([phrase_table.setdefault(text, len(phrase_table)) for text in levels])
    caption_table: dict[str, int] = {"": 0}
    caption_ids = np.zeros((len(position), 4), dtype=np.int64)
    seen = np.zeros(len(position), dtype=np.int64)
    for entry in captions["annotations"]:
        index = position[entry["image_id"]]
        if seen[index] < 4:
            caption_ids[index, seen[index] :] = caption_table.setdefault(entry["caption"], len(caption_table))
            seen[index] += 1
    starts = np.searchsorted(np.asarray(owners), np.arange(len(position) + 1))
    partial = target.with_suffix(".part.npz")
    np.savez(
        partial,
        size=np.asarray([instances["images"][0]["height"], instances["images"][0]["width"]]),
        boxes=np.asarray(boxes, dtype=np.float32),
        points=np.asarray(points, dtype=np.float32),
        polygons=np.asarray(polygons),
        packed=np.asarray(packed),
        starts=starts,
        phrase_ids=np.asarray(phrase_ids),
        caption_ids=caption_ids,
        phrases=np.asarray(list(phrase_table)),
        captions=np.asarray(list(caption_table)),
    )
    partial.replace(target)
    return target


class GroundedDataset:
    """Random access to training samples; all randomness comes from the generator passed in.

    Args:
        folder: COCO-format folder.
        latents: float16 [num_images, C, h, w] in the order of ``images``; a memory map is fine.
        phrase_embeddings: float [num_phrases, D], pooled text states in the order of the cache.
        caption_states: float16 [num_captions, 77, D], token states in the order of the cache; a memory map
            is fine.
        max_instances: Slots per image; further instances are not shown.
        num_mask_points: Points that stand for a mask; every k-th of the cached 256.
        segment_size: Side of the masks that the segment branch sees, or None without that branch.
        local_mask_radius: Relative radii for ``"point"`` and ``"scribble"``, or None.
        rules: What samples show.
    """

    def __init__(
        self,
        folder: Path,
        latents: NDArray[np.float16],
        phrase_embeddings: Tensor,
        caption_states: NDArray[np.float16],
        *,
        max_instances: int,
        num_mask_points: int,
        segment_size: int | None,
        local_mask_radius: dict[str, float] | None,
        rules: FormatRules,
    ) -> None:
        with np.load(build_location_cache(folder), allow_pickle=False) as cache:
            self._boxes = torch.from_numpy(cache["boxes"])
            self._points = torch.from_numpy(cache["points"])
            self._polygons = cache["polygons"]
            self._packed = cache["packed"]
            self._starts = cache["starts"]
            self._phrase_ids = cache["phrase_ids"]
            self._caption_ids = cache["caption_ids"]
            self._mask_size = (int(cache["size"][0]), int(cache["size"][1]))
        if len(latents) != len(self._caption_ids):
            raise ValueError(
                f"{folder}: {len(latents)} latents for {len(self._caption_ids)} images; encode again"
            )
        self._latents = latents
        self._phrase_embeddings = phrase_embeddings
        self._caption_states = caption_states
        if NUM_MASK_POINTS % num_mask_points:
            raise ValueError(f"num_mask_points: {num_mask_points} does not divide {NUM_MASK_POINTS}")
        self._polygons = self._polygons.reshape(-1, NUM_MASK_POINTS, 2)[
            :, :: NUM_MASK_POINTS // num_mask_points
        ]
        self._polygons = self._polygons.reshape(-1, 2 * num_mask_points)
        self._max_instances = max_instances
        self._segment_size = segment_size
        self._radius = local_mask_radius
        self._rules = rules

    def __len__(self) -> int:
        return len(self._caption_ids)

    def _presence(self, count: int, case: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which formats each instance shows, bool [count, 4] in the order of `FORMATS`."""
        rules = self._rules
        if case < rules.all_formats:
            return np.ones((count, 4), dtype=bool)
        if case < rules.all_formats + rules.random_subset:
            chosen = rng.random((count, 4)) < 0.4
            chosen[np.arange(count), rng.integers(4, size=count)] = True
            return chosen
        weights = np.asarray(rules.keep_only)
        chosen = np.zeros((count, 4), dtype=bool)
        chosen[:, rng.choice(4, p=weights / weights.sum())] = True
        return chosen

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> GroundedBatch:
        """Builds a batch.

        Args:
            indices: Image indices, int [B].
            rng: Source of all random choices.

        Returns:
            The batch, float32 on the CPU.
        """
        size, slots = len(indices), self._max_instances
        latents = torch.from_numpy(np.asarray(self._latents[indices], dtype=np.float32))
        height, width = latents.shape[-2:]
        present = torch.zeros(size, slots, 4)
        embeddings = torch.zeros(size, slots, self._phrase_embeddings.shape[-1])
        boxes, points = torch.zeros(size, slots, 4), torch.zeros(size, slots, 2)
        scribbles = torch.zeros(size, slots, NUM_SCRIBBLE_POINTS, 2)
        polygons = torch.zeros(size, slots, self._polygons.shape[-1])
        masks = torch.zeros(size, slots, *self._mask_size)
        caption_rows = np.zeros(size, dtype=np.int64)
        rules = self._rules
        for row, index in enumerate(indices):
            level = 0 if rng.random() < rules.full_phrase else int(rng.integers(1, 4))
            case = rng.random()
            if case < rules.unconditional:
                continue
            case -= rules.unconditional
            caption_rows[row] = self._caption_ids[index, level]
            if case < rules.text_only:
                continue
            case -= rules.text_only
            if case < rules.no_caption:
                caption_rows[row] = 0
            first, last = int(self._starts[index]), int(self._starts[index + 1])
            chosen = rng.permutation(np.arange(first, last))[:slots]
            count = len(chosen)
            shown = self._presence(count, rng.random(), rng)
            present[row, :count] = torch.from_numpy(shown).float()
            embeddings[row, :count] = self._phrase_embeddings[self._phrase_ids[chosen, level]]
            boxes[row, :count] = self._boxes[chosen]
            points[row, :count] = self._points[chosen]
            if shown[:, 2:].any():
                bits = np.unpackbits(self._packed[chosen], axis=1).reshape(count, *self._mask_size)
                scribbles[row, :count] = torch.from_numpy(np.stack([_scribble(mask, rng) for mask in bits]))
                masks[row, :count] = torch.from_numpy(bits).float()
                polygons[row, :count] = torch.from_numpy(self._polygons[chosen].astype(np.float32))
        shown_masks = masks * present[..., 3, None, None]
        segments = None
        if self._segment_size is not None and self._mask_size == (self._segment_size,) * 2:
            segments = shown_masks
        elif self._segment_size is not None:
            segments = torch.nn.functional.interpolate(shown_masks, (self._segment_size, self._segment_size))
        exists = present.amax(dim=-1)
        by_format = {name: present[..., position] for position, name in enumerate(FORMATS)}
        grounding: dict[str, Any] = {
            "boxes": boxes * by_format["box"][..., None],
            "masks": exists,
            "positive_embeddings": embeddings,
            "scribbles": (scribbles.flatten(2)) * by_format["scribble"][..., None],
            "polygons": polygons * by_format["mask"][..., None],
            "segs": segments,
            "points": points * by_format["point"][..., None],
            "format_masks": by_format,
        }
        where = self._where(by_format, boxes, points, scribbles, shown_masks, height, width)
        context = torch.from_numpy(self._caption_states[caption_rows].astype(np.float32))
        return GroundedBatch(latents, context, grounding, where & (exists > 0)[..., None, None])

    def _where(
        self,
        present: dict[str, Tensor],
        boxes: Tensor,
        points: Tensor,
        scribbles: Tensor,
        masks: Tensor,
        height: int,
        width: int,
    ) -> Tensor:
        """Instance masks on the latent grid from the best format shown: mask, box, scribble, point."""
        everywhere = torch.ones(*boxes.shape[:2], height, width, dtype=torch.bool)
        by_point = by_scribble = everywhere
        if self._radius is not None:
            by_point = cells_from_points(points[..., None, :], self._radius["point"], height, width)
            by_scribble = cells_from_points(scribbles, self._radius["scribble"], height, width)
        by_box = cells_from_boxes(boxes, height, width)
        by_mask = cells_from_masks(masks, height, width)
        where = torch.where(present["scribble"][..., None, None] > 0, by_scribble, by_point)
        where = torch.where(present["box"][..., None, None] > 0, by_box, where)
        return torch.where(present["mask"][..., None, None] > 0, by_mask, where)


def _scribble(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """20 random mask pixels ordered by distance to the origin, as published; relative pixel centres."""
    pixels = np.flatnonzero(mask)
    height, width = mask.shape
    if len(pixels) == 0:
        return np.zeros((NUM_SCRIBBLE_POINTS, 2), dtype=np.float32)
    drawn = rng.choice(pixels, NUM_SCRIBBLE_POINTS, replace=len(pixels) < NUM_SCRIBBLE_POINTS)
    rows, columns = drawn // width, drawn % width
    order = np.argsort(rows.astype(np.float64) ** 2 + columns.astype(np.float64) ** 2, kind="stable")
    points = np.stack([(columns[order] + 0.5) / width, (rows[order] + 0.5) / height], axis=1)
    return points.astype(np.float32)
