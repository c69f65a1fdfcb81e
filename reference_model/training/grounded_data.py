"""Training samples of the grounded UNet: cached latents, text embeddings and instance locations.

A sample is an image of a COCO-format folder. Rules decide what the model is shown
(`reference_model.training.rules`); the tensors have the names and shapes that `UniFusion` takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_model.instance_masks import cells_from_boxes, cells_from_masks, cells_from_points
from reference_model.training.locations import NUM_MASK_POINTS, Locations
from reference_model.training.rules import FORMATS, FormatRules, PaperRules, Rules

__all__ = ["FORMATS", "FormatRules", "GroundedBatch", "GroundedDataset", "PaperRules", "States"]

NUM_SCRIBBLE_POINTS = 20


class States(Protocol):
    """Token states of captions by row: an array, a memory map or an encoder."""

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Float [len(rows), 77, D]."""
        ...


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


class GroundedDataset:
    """Random access to training samples; all randomness comes from the generator passed in.

    Args:
        locations: Boxes, points, masks and words of the folder.
        latents: float16 [num_images, C, h, w] in the order of ``images``; a memory map is fine.
        phrase_embeddings: float [num_phrases, D], pooled text states in the order of `Locations.phrases`.
        caption_states: Token states in the order of `Locations.captions`.
        max_instances: Slots per image; further instances are not shown.
        num_mask_points: Points that stand for a mask; every k-th of the cached 256.
        segment_size: Side of the masks that the segment branch sees, or None without that branch.
        local_mask_radius: Relative radii for ``"point"`` and ``"scribble"``, or None.
        rules: What samples show.
        flipped_latents: Latents of the mirrored images, for rules that mirror.

    Raises:
        ValueError: If latents do not fit the images or the rules, or the points do not divide.
    """

    def __init__(
        self,
        locations: Locations,
        latents: NDArray[np.float16],
        phrase_embeddings: Tensor,
        caption_states: States,
        *,
        max_instances: int,
        num_mask_points: int,
        segment_size: int | None,
        local_mask_radius: dict[str, float] | None,
        rules: Rules,
        flipped_latents: NDArray[np.float16] | None = None,
    ) -> None:
        self._locations = locations
        self._boxes = torch.from_numpy(locations.boxes)
        self._points = torch.from_numpy(locations.points)
        if rules.box_centres:
            self._points = (self._boxes[:, :2] + self._boxes[:, 2:]) / 2
        for array in (latents, flipped_latents):
            if array is not None and len(array) != len(self):
                raise ValueError(f"{len(array)} latents for {len(self)} images; encode again")
        if flipped_latents is not None and flipped_latents.shape != latents.shape:
            raise ValueError(
                f"flipped latents of {flipped_latents.shape}, the others are {latents.shape}; encode again"
            )
        if isinstance(rules, PaperRules) and rules.flip > 0 and flipped_latents is None:
            raise ValueError(
                "flip: the rules mirror images, but there are no latents of mirrored images; "
                "make them with `latents --flip` or set flip to 0"
            )
        if NUM_MASK_POINTS % num_mask_points:
            raise ValueError(f"num_mask_points: {num_mask_points} does not divide {NUM_MASK_POINTS}")
        self._latents = latents
        self._flipped_latents = flipped_latents
        self._phrase_embeddings = phrase_embeddings
        self._caption_states = caption_states
        self._polygons = locations.mask_points[:, :: NUM_MASK_POINTS // num_mask_points]
        self._max_instances = max_instances
        self._segment_size = segment_size
        self._radius = local_mask_radius
        self._rules = rules

    def __len__(self) -> int:
        return len(self._locations.starts) - 1

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> GroundedBatch:
        """Builds a batch.

        Args:
            indices: Image indices, int [B].
            rng: Source of all random choices.

        Returns:
            The batch, float32 on the CPU.
        """
        size, slots = len(indices), self._max_instances
        latents = np.asarray(self._latents[indices], dtype=np.float32)
        present = torch.zeros(size, slots, 4)
        exists = torch.zeros(size, slots)
        embeddings = torch.zeros(size, slots, self._phrase_embeddings.shape[-1])
        boxes, points = torch.zeros(size, slots, 4), torch.zeros(size, slots, 2)
        scribbles = torch.zeros(size, slots, NUM_SCRIBBLE_POINTS, 2)
        polygons = torch.zeros(size, slots, self._polygons.shape[1], 2)
        masks = torch.zeros(size, slots, *self._locations.size)
        caption_rows = np.zeros(size, dtype=np.int64)
        for row, choice in enumerate(self._rules.choices(self._locations, indices, slots, rng)):
            caption_rows[row] = choice.caption
            chosen, count = choice.instances, len(choice.instances)
            present[row, :count] = torch.from_numpy(choice.shown).float()
            exists[row, :count] = torch.from_numpy(choice.exists).float()
            embeddings[row, :count] = self._phrase_embeddings[choice.phrases]
            boxes[row, :count] = self._boxes[chosen]
            points[row, :count] = self._points[chosen]
            if choice.shown[:, 2:].any():
                bits = self._locations.masks(chosen)
                scribbles[row, :count] = torch.from_numpy(np.stack([_scribble(mask, rng) for mask in bits]))
                masks[row, :count] = torch.from_numpy(bits).float()
                polygons[row, :count] = torch.from_numpy(self._polygons[chosen].astype(np.float32))
            if choice.flipped and self._flipped_latents is not None:
                latents[row] = self._flipped_latents[indices[row]]
                mirrored = (boxes[row], points[row], scribbles[row], polygons[row])
                _mirror(*(values[:count] for values in mirrored))
                masks[row] = masks[row].flip(-1)
        shown_masks = masks * present[..., 3, None, None]
        segments = None
        if self._segment_size is not None and self._locations.size == (self._segment_size,) * 2:
            segments = shown_masks
        elif self._segment_size is not None:
            segments = torch.nn.functional.interpolate(shown_masks, (self._segment_size, self._segment_size))
        by_format = {name: present[..., position] for position, name in enumerate(FORMATS)}
        grounding: dict[str, Any] = {
            "boxes": boxes * by_format["box"][..., None],
            "masks": exists,
            "positive_embeddings": embeddings * exists[..., None],
            "scribbles": scribbles.flatten(2) * by_format["scribble"][..., None],
            "polygons": polygons.flatten(2) * by_format["mask"][..., None],
            "segs": segments,
            "points": points * by_format["point"][..., None],
            "format_masks": by_format,
        }
        height, width = latents.shape[-2:]
        where = self._where(by_format, boxes, points, scribbles, shown_masks, height, width)
        context = torch.from_numpy(np.asarray(self._caption_states[caption_rows], dtype=np.float32))
        return GroundedBatch(
            torch.from_numpy(latents), context, grounding, where & (exists > 0)[..., None, None]
        )

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


def _mirror(boxes: Tensor, points: Tensor, scribbles: Tensor, polygons: Tensor) -> None:
    """Mirrors relative coordinates left to right, in place; points keep their order, as published."""
    boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    for values in (points, scribbles, polygons):
        values[..., 0] = 1 - values[..., 0]


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
