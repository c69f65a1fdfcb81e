"""COCO-format files, read once into checked, indexed records."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from instbench.datasets.lvis import image_file_name, is_lvis
from instbench.datasets.validation import (
    Problem,
    check_annotations,
    check_captions,
    raise_on_errors,
    read_json,
)

__all__ = ["CocoAnnotation", "CocoAnnotations", "CocoCaptions", "CocoImage"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of a dataset.

    Attributes:
        id: Image id.
        width: Width in pixels.
        height: Height in pixels.
        file_name: Checked relative name, or None if the file does not say.
        neg_category_ids: LVIS: categories that are surely not in the image.
        not_exhaustive_category_ids: LVIS: categories whose objects are not all annotated.
    """

    id: int
    width: int
    height: int
    file_name: str | None = None
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One annotated object.

    Attributes:
        id: Annotation id.
        image_id: Id of the image it belongs to.
        category_id: Category id.
        bbox_xywh: Box (x, y, width, height) in pixels, as annotated.
        segmentation: Polygons or run lengths as in the file; None for a box alone.
        is_crowd: Whether it stands for a group of objects.
        area: Annotated area in square pixels, or None.
        captions: Phrases for this object, if the dataset has any.
        attributes: Attribute words such as ``{"color": "red"}``, if the dataset has any.
    """

    id: int
    image_id: int
    category_id: int
    bbox_xywh: tuple[float, float, float, float]
    segmentation: Any = None
    is_crowd: bool = False
    area: float | None = None
    captions: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CocoAnnotations:
    """A checked COCO or LVIS ``instances`` file.

    Attributes:
        source: Where it came from, for messages.
        images: Images by id, in ascending order of id.
        categories: Category names by id, in file order.
        annotations: Annotations in file order.
        problems: Warnings of the check.
        frequencies: LVIS: ``"r"``, ``"c"`` or ``"f"`` by category id; empty for other files.
    """

    source: str
    images: Mapping[int, CocoImage]
    categories: Mapping[int, str]
    annotations: tuple[CocoAnnotation, ...]
    problems: tuple[Problem, ...] = ()
    frequencies: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Path | str | Mapping[str, Any]) -> CocoAnnotations:
        """Reads and checks annotations; LVIS files are recognised by their fields.

        Args:
            source: A JSON file, or its content.

        Returns:
            The indexed annotations; warnings are logged once and kept in ``problems``.

        Raises:
            InputError: At the first error, with the number of further ones.
        """
        name, data = _load(source, "annotations")
        problems = check_annotations(data)
        raise_on_errors(problems, name)
        if problems:
            logger.warning("%s: %d warnings, the first: %s", name, len(problems), problems[0])
        lvis = is_lvis(data)
        images = sorted((_image(record, lvis=lvis) for record in data["images"]), key=lambda image: image.id)
        return cls(
            source=name,
            images={image.id: image for image in images},
            categories={record["id"]: record["name"] for record in data["categories"]},
            annotations=tuple(_annotation(record) for record in data["annotations"]),
            problems=tuple(problems),
            frequencies={record["id"]: record["frequency"] for record in data["categories"]} if lvis else {},
        )

    @staticmethod
    def check(source: Path | str | Mapping[str, Any]) -> list[Problem]:
        """Lists all problems of a file at once, masks that come out empty included.

        Raises:
            InputError: If the file is no readable JSON.
        """
        return check_annotations(_load(source, "annotations")[1], rasterise=True)

    @cached_property
    def by_image(self) -> Mapping[int, tuple[CocoAnnotation, ...]]:
        """Annotations of every image in file order; an empty tuple where an image has none."""
        grouped: dict[int, list[CocoAnnotation]] = {image_id: [] for image_id in self.images}
        for annotation in self.annotations:
            grouped[annotation.image_id].append(annotation)
        return {image_id: tuple(items) for image_id, items in grouped.items()}


@dataclass(frozen=True)
class CocoCaptions:
    """A checked COCO ``captions`` file.

    Attributes:
        source: Where it came from, for messages.
        by_image: Non-empty captions of every image, in file order.
    """

    source: str
    by_image: Mapping[int, tuple[str, ...]]

    @classmethod
    def read(cls, source: Path | str | Mapping[str, Any]) -> CocoCaptions:
        """Reads and checks captions.

        Args:
            source: A JSON file, or its content.

        Raises:
            InputError: At the first error, with the number of further ones.
        """
        name, data = _load(source, "captions")
        raise_on_errors(check_captions(data), name)
        grouped: dict[int, list[str]] = {}
        for record in data["annotations"]:
            if record["caption"].strip():
                grouped.setdefault(record["image_id"], []).append(record["caption"])
        return cls(source=name, by_image={image_id: tuple(texts) for image_id, texts in grouped.items()})

    @staticmethod
    def check(
        source: Path | str | Mapping[str, Any], image_ids: Mapping[int, Any] | None = None
    ) -> list[Problem]:
        """Lists all problems of a file at once.

        Args:
            source: A JSON file, or its content.
            image_ids: Images that need captions, or None.

        Raises:
            InputError: If the file is no readable JSON.
        """
        return check_captions(_load(source, "captions")[1], image_ids=image_ids)


def _load(source: Path | str | Mapping[str, Any], kind: str) -> tuple[str, Any]:
    if isinstance(source, Mapping):
        return kind, source
    return str(source), read_json(Path(source))


def _image(record: Mapping[str, Any], *, lvis: bool) -> CocoImage:
    return CocoImage(
        id=record["id"],
        width=record["width"],
        height=record["height"],
        file_name=image_file_name(record, lvis=lvis),
        neg_category_ids=tuple(record["neg_category_ids"]) if lvis else (),
        not_exhaustive_category_ids=tuple(record["not_exhaustive_category_ids"]) if lvis else (),
    )


def _annotation(record: Mapping[str, Any]) -> CocoAnnotation:
    x, y, width, height = (float(value) for value in record["bbox"])
    captions = record.get("captions", record.get("caption")) or ()
    area = record.get("area")
    return CocoAnnotation(
        id=record["id"],
        image_id=record["image_id"],
        category_id=record["category_id"],
        bbox_xywh=(x, y, width, height),
        segmentation=record.get("segmentation") or None,
        is_crowd=bool(record.get("iscrowd", 0)),
        area=None if area is None else float(area),
        captions=(captions,) if isinstance(captions, str) else tuple(captions),
        attributes=dict(record.get("attributes") or {}),
    )
