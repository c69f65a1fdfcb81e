"""LVIS files: COCO's form with federated annotations.

In LVIS an image is annotated exhaustively for some categories only. Each image names the categories
that are surely absent (``neg_category_ids``) and those whose objects are not all annotated
(``not_exhaustive_category_ids``); each category has a frequency: ``r``are, ``c``ommon or ``f``requent.
Images come from COCO's 2017 folders: v1 files give only ``coco_url``, and val images lie in both
``train2017`` and ``val2017``, so names keep the folder. Source: Gupta, Dollar, Girshick, "LVIS: A Dataset
for Large Vocabulary Instance Segmentation", CVPR 2019, https://www.lvisdataset.org.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from instbench.datasets.problems import (
    Problem,
    error,
    ids_of,
    is_id,
    is_plain_relative_name,
    record_name,
    short,
)

if TYPE_CHECKING:
    from instbench.datasets.coco import CocoAnnotations

__all__ = ["FREQUENCIES", "add_federated_fields", "check_federated", "image_file_name", "is_lvis"]

FREQUENCIES = ("r", "c", "f")
_IMAGE_FIELDS = ("neg_category_ids", "not_exhaustive_category_ids")


def is_lvis(data: Any) -> bool:
    """Whether the content of an instances file has LVIS's fields of images."""
    images = data.get("images") if isinstance(data, Mapping) else None
    return isinstance(images, list) and any(
        isinstance(image, dict) and any(field in image for field in _IMAGE_FIELDS) for image in images
    )


def image_file_name(record: Mapping[str, Any], *, lvis: bool) -> str | None:
    """The checked relative name of an image, or None if the record has no usable one.

    COCO: ``file_name``, else the last part of ``coco_url``. LVIS: folder and name out of ``coco_url``
    (``"val2017/000000000139.jpg"``), else ``file_name``, which in v0.5 is the one of 2014 and leads nowhere.

    Args:
        record: A record of ``images``.
        lvis: Whether the file is an LVIS file.
    """
    url = record.get("coco_url")
    path = PurePosixPath(url.partition("://")[2]) if isinstance(url, str) else PurePosixPath()
    from_url = "/".join(path.parts[1:][-2:] if lvis else path.parts[1:][-1:])
    names = (from_url, record.get("file_name")) if lvis else (record.get("file_name"), from_url)
    for name in names:
        if name is not None and name != "":
            return str(name) if is_plain_relative_name(name) else None
    return None


def check_federated(data: Mapping[str, Any]) -> list[Problem]:
    """Checks the fields that LVIS adds to COCO's.

    Args:
        data: Content of an LVIS instances file whose ``images``, ``annotations`` and ``categories`` are lists.

    Returns:
        All problems in file order.
    """
    known = ids_of(data["categories"])
    problems: list[Problem] = []
    for position, record in enumerate(data["categories"]):
        if isinstance(record, dict) and record.get("frequency") not in FREQUENCIES:
            where = f"{record_name('category', record, position)}: frequency"
            problems.append(error(where, f"must be r, c or f, not {short(record.get('frequency'))}"))
    negative: dict[Any, set[int]] = {}
    for position, record in enumerate(data["images"]):
        if not isinstance(record, dict):
            continue
        for field in _IMAGE_FIELDS:
            where = f"{record_name('image', record, position)}: {field}"
            problems += _check_category_list(record.get(field), where, known)
        values = record.get("neg_category_ids")
        if is_id(record.get("id")) and isinstance(values, list):
            negative[record["id"]] = {value for value in values if is_id(value)}
    for position, record in enumerate(data["annotations"]):
        if not isinstance(record, dict) or not is_id(record.get("image_id")):
            continue
        category = record.get("category_id")
        if is_id(category) and category in negative.get(record["image_id"], ()):
            where = f"{record_name('annotation', record, position)}: category_id"
            image = record["image_id"]
            message = f"{category} is in neg_category_ids of image {image}; remove one of the two"
            problems.append(error(where, message))
    return problems


def add_federated_fields(ground_truth: dict[str, Any], annotations: CocoAnnotations) -> dict[str, Any]:
    """Ground truth with what LVIS's average precision needs.

    Args:
        ground_truth: A COCO dict of some or all images of ``annotations``.
        annotations: LVIS annotations.

    Returns:
        A copy whose images have ``neg_category_ids`` and ``not_exhaustive_category_ids``, and whose
        categories are all those of the annotations, each with its ``frequency``.

    Raises:
        KeyError: If an image id is none of the annotations'.
    """
    images = []
    for record in ground_truth["images"]:
        image = annotations.images[record["id"]]
        images.append(
            record
            | {
                "neg_category_ids": list(image.neg_category_ids),
                "not_exhaustive_category_ids": list(image.not_exhaustive_category_ids),
            }
        )
    categories = [
        {"id": category_id, "name": name, "frequency": annotations.frequencies[category_id]}
        for category_id, name in sorted(annotations.categories.items())
    ]
    return ground_truth | {"images": images, "categories": categories}


def _check_category_list(values: Any, where: str, known: set[int]) -> Iterator[Problem]:
    if not isinstance(values, list) or not all(is_id(value) for value in values):
        yield error(where, f"must be a list of category ids, not {short(values)}")
        return
    for value in sorted(set(values) - known):
        yield error(where, f"{value} is not in categories; add it there or remove it here")
