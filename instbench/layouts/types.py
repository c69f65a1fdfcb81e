"""Value objects of a layout: what one image must show, and where.

Coordinates are relative to the canvas: x and y in [0, 1], x to the right, y down. Masks are COCO
run-length encodings at the size of the source image. Conversion to pixels happens in
`instbench.layouts.geometry`, nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Condition", "Instance", "Layout", "MaskRLE", "PointXY"]

PointXY = tuple[float, float]


class Condition(StrEnum):
    """A location format that a generator may be shown."""

    BOX = "box"
    MASK = "mask"
    POINT = "point"
    SCRIBBLE = "scribble"


@dataclass(frozen=True, slots=True)
class MaskRLE:
    """A binary mask as COCO compressed run lengths (column-major).

    Attributes:
        height: Mask height in pixels of the source image.
        width: Mask width in pixels of the source image.
        counts: Compressed counts as ASCII text, as pycocotools writes them.
    """

    height: int
    width: int
    counts: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One requested object.

    Attributes:
        phrase: Free text that describes this object to the generator.
        category: Category name.
        category_id: Category id in the source dataset.
        annotation_id: Annotation id in the source dataset.
        box_xyxy: Relative (x0, y0, x1, y1), or None where the condition is withheld.
        mask: Instance mask at source size, or None.
        point_xy: Relative point, or None.
        scribble_xy: Relative scribble points in drawing order (20 by default), or None.
        mask_points_xy: Relative points that stand for the mask (256 by default), or None.
        color: Colour word that is asked for, or None.
        texture: Texture word that is asked for, or None.
        is_crowd: Crowd region: never conditions the model, ignored by the metrics (strict).
        is_ignored: Present in the annotation but neither requested nor counted (strict edition:
            crowds, degenerate annotations and instances beyond the cap).
        ignore_reason: Why `is_ignored` is set, e.g. ``"crowd"``, ``"over-cap"``, ``"degenerate"``.
        area: Area in square pixels of the source image, as annotated.
        frequency: LVIS: how often the category occurs, ``"r"``, ``"c"`` or ``"f"``; None for other data.
        condition: The one format that this instance is asked in (hybrid benchmarks); None where the
            benchmark's conditions hold for all instances alike.
    """

    phrase: str
    category: str
    category_id: int
    annotation_id: int
    box_xyxy: tuple[float, float, float, float] | None
    mask: MaskRLE | None = None
    point_xy: PointXY | None = None
    scribble_xy: tuple[PointXY, ...] | None = None
    mask_points_xy: tuple[PointXY, ...] | None = None
    color: str | None = None
    texture: str | None = None
    is_crowd: bool = False
    is_ignored: bool = False
    ignore_reason: str | None = None
    area: float | None = None
    frequency: str | None = None
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What one image must show.

    Attributes:
        image_key: Our own safe key (``[a-z0-9._-]+``): file names are made from it, never from data.
        dataset: Name of the dataset, e.g. ``"shapes-val"``.
        image_id: Image id in the source dataset.
        caption: Global prompt.
        source_width: Width of the source image in pixels.
        source_height: Height of the source image in pixels.
        instances: All instances, ignored ones included.
        source_path: Where the real image lies, for the ceiling; None if unknown.
        absent_category_ids: LVIS: categories that are surely not in the image.
        partial_category_ids: LVIS: categories whose objects are not all annotated.
    """

    image_key: str
    dataset: str
    image_id: int
    caption: str
    source_width: int
    source_height: int
    instances: tuple[Instance, ...] = field(default_factory=tuple)
    source_path: str | None = None
    absent_category_ids: tuple[int, ...] = ()
    partial_category_ids: tuple[int, ...] = ()

    @property
    def requested(self) -> tuple[Instance, ...]:
        """Instances that are asked for and counted."""
        return tuple(instance for instance in self.instances if not instance.is_ignored)
