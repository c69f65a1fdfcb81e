"""Grounded prompts: what to draw and where, and the tensors that the model takes.

Coordinates are relative to the canvas: x to the right, y down, both in [0, 1].
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_model.attention_masks import box_masks
from reference_model.instance_masks import cells_from_boxes, cells_from_masks, cells_from_points
from reference_model.points import mask_points_from_mask, relative_points
from reference_model.unifusion import FORMATS, resolve_keep

__all__ = [
    "GroundedInstance",
    "GroundedPrompt",
    "build_grounding",
    "instance_prompts",
    "latent_masks",
    "paste_regions",
    "pick_points",
    "validate_prompt",
]

PointXY = tuple[float, float]

_EDGE = 1e-3
"""Rounding in data files puts corners this far outside the canvas; such values are clamped."""


@dataclass(frozen=True, slots=True, eq=False)
class GroundedInstance:
    """One object to draw. Any subset of the formats may be given, none of them included.

    Attributes:
        phrase: Free text that describes the object.
        box_xyxy: Box.
        point_xy: A point of the object.
        scribble_xy: Points of a stroke in drawing order, at least two.
        mask_points_xy: Points that stand for the mask; None derives them from `mask`.
        mask: Binary mask [H, W] over the whole canvas, any size.
    """

    phrase: str
    box_xyxy: tuple[float, float, float, float] | None = None
    point_xy: PointXY | None = None
    scribble_xy: Sequence[PointXY] | None = None
    mask_points_xy: Sequence[PointXY] | None = None
    mask: NDArray[Any] | Tensor | None = None

    def keeping(self, formats: Sequence[str]) -> GroundedInstance:
        """This instance with all formats outside `formats` withheld."""
        return replace(
            self,
            box_xyxy=self.box_xyxy if "box" in formats else None,
            point_xy=self.point_xy if "point" in formats else None,
            scribble_xy=self.scribble_xy if "scribble" in formats else None,
            mask_points_xy=self.mask_points_xy if "mask" in formats else None,
            mask=self.mask if "mask" in formats else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class GroundedPrompt:
    """One image to draw.

    Attributes:
        caption: Global prompt; may be empty.
        instances: Objects in slot order; none means text only.
    """

    caption: str
    instances: tuple[GroundedInstance, ...] = ()


def instance_prompts(prompt: GroundedPrompt) -> list[GroundedPrompt]:
    """The prompts of the instance chains: each instance alone, with its phrase as caption."""
    return [GroundedPrompt(instance.phrase, (instance,)) for instance in prompt.instances]


def _numbers(where: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The values as numbers of a shape, in which -1 stands for any length."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        table = np.empty(())
    if table.size == 0 and shape[0] == -1 and table.ndim:
        return np.empty((0, *shape[1:]))
    fits = table.ndim == len(shape) and all(
        want in (-1, has) for want, has in zip(shape, table.shape, strict=True)
    )
    if not fits:
        wanted = (
            "four numbers x0, y0, x1, y1"
            if shape == (4,)
            else "x and y"
            if shape == (2,)
            else "pairs of x and y"
        )
        raise ValueError(f"{where}: {str(values)[:60]!r} is not {wanted}; give them in [0, 1]")
    return table


def _check_points(where: str, points: NDArray[np.float64]) -> None:
    for x, y in points.tolist():
        inside = -_EDGE <= x <= 1 + _EDGE and -_EDGE <= y <= 1 + _EDGE
        if not (math.isfinite(x) and math.isfinite(y) and inside):
            raise ValueError(f"{where} ({x:g}, {y:g}) lies outside the canvas; give x and y in [0, 1]")


def _check_instance(where: str, instance: GroundedInstance) -> None:
    if not isinstance(instance.phrase, str) or not instance.phrase.strip():
        raise ValueError(f"{where}: the phrase is empty or no text; describe the object")
    where = f"{where} ({instance.phrase[:40]!r})"
    if instance.box_xyxy is not None:
        box = _numbers(f"{where}: box", instance.box_xyxy, (4,))
        _check_points(f"{where}: box corner", box.reshape(2, 2))
        x0, y0, x1, y1 = box.tolist()
        if x1 <= x0 or y1 <= y0:
            raise ValueError(f"{where}: box {x0:g}, {y0:g}, {x1:g}, {y1:g} needs x0 < x1 and y0 < y1")
    if instance.point_xy is not None:
        _check_points(f"{where}: point", _numbers(f"{where}: point", instance.point_xy, (2,))[None])
    for name, points in (("scribble", instance.scribble_xy), ("mask points", instance.mask_points_xy)):
        if points is None:
            continue
        table = _numbers(f"{where}: {name}", points, (-1, 2))
        if len(table) < 2:
            raise ValueError(f"{where}: {name} with {len(table)} points; give at least two")
        _check_points(f"{where}: {name} at", table)
    if instance.mask is not None:
        if not isinstance(instance.mask, np.ndarray | Tensor):
            raise ValueError(f"{where}: mask is a {type(instance.mask).__name__}; give an array or a tensor")
        shape = tuple(instance.mask.shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{where}: mask of shape {shape}; give one [height, width] array")


def validate_prompt(prompt: GroundedPrompt, max_instances: int, *, name: str = "prompt") -> None:
    """Checks a prompt.

    Args:
        prompt: The prompt. No instances is fine: text only.
        max_instances: Slots of the model.
        name: How messages call the prompt.

    Raises:
        ValueError: Naming the instance and field: too many instances, an empty phrase, a box without area, a
            coordinate outside the canvas, a scribble of one point, a mask that is not 2-D, a field that is no
            such thing at all.
    """
    if not isinstance(prompt.caption, str):
        raise ValueError(f"{name}: the caption is a {type(prompt.caption).__name__}; give text, maybe empty")
    if len(prompt.instances) > max_instances:
        raise ValueError(
            f"{name}: {len(prompt.instances)} instances, the model has {max_instances} slots; drop some"
        )
    for number, instance in enumerate(prompt.instances):
        _check_instance(f"{name}, instance {number}", instance)


def pick_points(points: Sequence[PointXY], count: int) -> NDArray[np.float32]:
    """Exactly `count` of the points, equally spaced in their order (the published rule, without its sort).

    With more points than needed every ``len // count``-th is taken from the start; with fewer, number i is
    point ``i * len // count``.

    Args:
        points: At least one point.
        count: Number of points wanted.

    Returns:
        float32 [count, 2].
    """
    table = np.asarray(points, dtype=np.float32).reshape(-1, 2)
    if len(table) >= count:
        return table[:: len(table) // count][:count]
    return table[np.arange(count) * len(table) // count]


def _binary(mask: NDArray[Any] | Tensor) -> Tensor:
    return (torch.as_tensor(mask) > 0).to("cpu")


def _mask_points(instance: GroundedInstance, count: int) -> NDArray[np.float32] | None:
    """Points that stand for the mask, or None if there is neither mask nor points."""
    if instance.mask_points_xy is not None:
        return pick_points(instance.mask_points_xy, count)
    if instance.mask is None:
        return None
    mask = _binary(instance.mask).numpy()
    if not mask.any():
        return None
    # A fixed seed: the same mask must give the same tokens, whatever else is in the batch.
    flat = mask_points_from_mask(mask, count, rng=random.Random(0))
    if flat is None:
        return None
    return relative_points(flat, mask.shape[1], mask.shape[0]).reshape(-1, 2).astype(np.float32)


def _nearest(mask: Tensor, size: int) -> Tensor:
    """Nearest-neighbour resize sampled at pixel centres, as PIL does."""
    rows = ((torch.arange(size) + 0.5) * mask.shape[0] / size).long()
    columns = ((torch.arange(size) + 0.5) * mask.shape[1] / size).long()
    return mask[rows[:, None], columns[None, :]]


def _place(instance: GroundedInstance, radius: Mapping[str, float], height: int, width: int) -> Tensor | None:
    """Cells of one instance from its most exact format, or None if it has none with an extent."""
    if instance.mask is not None:
        mask = _binary(instance.mask)
        if mask.any():
            return cells_from_masks(mask, height, width)
    if instance.mask_points_xy is not None:
        points = torch.tensor(np.asarray(instance.mask_points_xy, dtype=np.float32))
        return cells_from_points(points, 0.0, height, width)
    if instance.box_xyxy is not None:
        return cells_from_boxes(torch.tensor(instance.box_xyxy), height, width)
    if instance.scribble_xy is not None and radius.get("scribble") is not None:
        points = torch.tensor(np.asarray(instance.scribble_xy, dtype=np.float32))
        return cells_from_points(points, radius["scribble"], height, width)
    if instance.point_xy is not None and radius.get("point") is not None:
        return cells_from_points(torch.tensor([instance.point_xy]), radius["point"], height, width)
    return None


def paste_regions(instances: Sequence[GroundedInstance], config: Any, size: tuple[int, int]) -> Tensor:
    """Regions of instances for crop-and-paste: the cells that their most exact format covers.

    Args:
        instances: One instance per instance chain.
        config: Config of the model (``local_mask_radius``).
        size: Rows and columns of the latent.

    Returns:
        bool [len(instances), rows, columns]; empty where the instance has no extent.
    """
    radius = getattr(config, "local_mask_radius", None) or {}
    regions = torch.zeros(len(instances), *size, dtype=torch.bool)
    for row, instance in enumerate(instances):
        place = _place(instance, radius, *size)
        if place is not None:
            regions[row] = place
    return regions


def latent_masks(
    prompts: Sequence[GroundedPrompt],
    config: Any,
    size: tuple[int, int],
    *,
    mode: str = "correct",
) -> Tensor:
    """Where each instance lies on the latent grid, for instance-masked attention.

    ``"correct"``: the cells that the mask touches; without a mask those of the box; without both a local mask
    around the scribble or point if the model's config has ``local_mask_radius``, else the whole canvas.
    ``"published"``: filled boxes with exchanged axes, as the published code makes them.

    Args:
        prompts: B prompts.
        config: Config of the model (``max_instances``, ``local_mask_radius``).
        size: Rows and columns of the latent.
        mode: ``"correct"`` or ``"published"``.

    Returns:
        bool [B, max_instances, rows, columns]; empty slots are False everywhere.
    """
    height, width = size
    masks = torch.zeros(len(prompts), config.max_instances, height, width, dtype=torch.bool)
    radius = getattr(config, "local_mask_radius", None) or {}
    for row, prompt in enumerate(prompts):
        for slot, instance in enumerate(prompt.instances):
            if mode == "published":
                box = torch.tensor(instance.box_xyxy or (0.0, 0.0, 0.0, 0.0))
                masks[row, slot] = box_masks(box, height, width, transposed=True)
            else:
                place = _place(instance, radius, height, width)
                masks[row, slot] = True if place is None else place
    return masks


def _fill_instance(
    tensors: dict[str, Any], row: int, slot: int, instance: GroundedInstance, config: Any
) -> None:
    """Writes the locations of one instance into the batch."""
    present = tensors["format_masks"]
    located = {
        "box": ("boxes", None if instance.box_xyxy is None else np.asarray(instance.box_xyxy)),
        "point": ("points", None if instance.point_xy is None else np.asarray(instance.point_xy)),
        "scribble": (
            "scribbles",
            None
            if instance.scribble_xy is None
            else pick_points(instance.scribble_xy, config.num_scribble_points),
        ),
        "mask": ("polygons", _mask_points(instance, config.num_mask_points)),
    }
    for name, (key, values) in located.items():
        if values is not None:
            clamped = np.clip(values.astype(np.float32), 0.0, 1.0)
            tensors[key][row, slot] = torch.from_numpy(clamped).flatten()
            present[name][row, slot] = 1.0


def build_grounding(
    prompts: Sequence[GroundedPrompt],
    embed_phrase: Callable[[list[str]], Tensor],
    config: Any,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    keep: Sequence[str] = FORMATS,
    size: tuple[int, int] | None = None,
    masked_attention: str | None = None,
) -> dict[str, Any]:
    """The tensors that `UniFusion` (and masked attention) takes, for a batch of prompts.

    Unlike the published inputs, which have one presence flag per slot, a format that an instance lacks is
    marked as absent (``format_masks``) and so becomes the learned null; instances of one image may show
    different formats.

    Args:
        prompts: B prompts.
        embed_phrase: Turns phrases into embeddings [n, D].
        config: Config of the `InstanceUNet` (slots, numbers of points, ``segment_size``, ...).
        device: Where the tensors go.
        dtype: Floating-point type.
        keep: Formats to keep; the others are withheld before anything is computed.
        size: Rows and columns of the latent; needed for ``instance_masks``.
        masked_attention: Mode; None takes the model's. ``"none"`` leaves ``instance_masks`` out.

    Returns:
        boxes [B, N, 4], masks [B, N], positive_embeddings [B, N, D], points [B, N, 2], scribbles and polygons
        [B, N, 2 * number of points], format_masks {format: [B, N]}; segs [B, N, S, S] if any mask is shown to
        a model with a segment branch; instance_masks bool [B, N, h, w] if `size` is given and the mode is not
        ``"none"``.

    Raises:
        ValueError: If a prompt is invalid (see `validate_prompt`).
    """
    kept = resolve_keep(keep)
    shown = []
    for number, prompt in enumerate(prompts):
        validate_prompt(prompt, config.max_instances, name=f"prompt {number}")
        shown.append(replace(prompt, instances=tuple(each.keeping(kept) for each in prompt.instances)))
    slots = (len(shown), config.max_instances)
    dimension = getattr(config, "grounding_in_dim", None) or config.cross_attention_dim
    tensors: dict[str, Any] = {
        "boxes": torch.zeros(*slots, 4),
        "masks": torch.zeros(slots),
        "positive_embeddings": torch.zeros(*slots, dimension),
        "scribbles": torch.zeros(*slots, 2 * config.num_scribble_points),
        "polygons": torch.zeros(*slots, 2 * config.num_mask_points),
        "points": torch.zeros(*slots, 2),
        "format_masks": {name: torch.zeros(slots) for name in FORMATS},
    }
    phrases = [instance.phrase for prompt in shown for instance in prompt.instances]
    embeddings = iter(embed_phrase(phrases).to("cpu", torch.float32) if phrases else ())
    with_masks = any(each.mask is not None for prompt in shown for each in prompt.instances)
    if with_masks and config.convnext_depths is not None:
        tensors["segs"] = torch.zeros(*slots, config.segment_size, config.segment_size)
    for row, prompt in enumerate(shown):
        for slot, instance in enumerate(prompt.instances):
            tensors["masks"][row, slot] = 1.0
            tensors["positive_embeddings"][row, slot] = next(embeddings)
            _fill_instance(tensors, row, slot, instance, config)
            if "segs" in tensors and instance.mask is not None:
                tensors["segs"][row, slot] = _nearest(_binary(instance.mask), config.segment_size)
    mode = config.masked_attention if masked_attention is None else masked_attention
    if size is not None and mode != "none":
        tensors["instance_masks"] = latent_masks(shown, config, size, mode=mode)
    return _moved(tensors, device, dtype)


def _moved(tensors: dict[str, Any], device: torch.device | str, dtype: torch.dtype) -> dict[str, Any]:
    return {
        name: _moved(value, device, dtype)
        if isinstance(value, dict)
        else value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        for name, value in tensors.items()
    }
