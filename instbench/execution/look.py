"""What evaluators see in images: rows for the observation tables, wherever the evaluators run."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from instbench.benchmarks.schema import Benchmark
from instbench.evaluators.base import Detections
from instbench.execution.catalog import asked_attributes
from instbench.execution.crops import (
    ATTRIBUTES,
    CROP_PADDING,
    PUBLISHED_CROP,
    Crop,
    asked_attribute,
    asked_crops,
    attribute_labels,
    attribute_prompts,
    found_crops,
)
from instbench.execution.matching import MATCH_RULE, match_layout
from instbench.execution.session import Evaluators
from instbench.layouts.types import Layout, MaskRLE

__all__ = ["Look", "Looker", "Picture", "Rows", "detections_from_row", "jpeg_copy"]

Rows = dict[str, list[dict[str, Any]]]
"""Rows by the name of their table: "detections", "crops", "features", "captions"."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to look at.

    Attributes:
        layout: What was asked for, in full.
        png: The stored file.
        sha256: Its hash.
        wanted: Tables that have no row of it yet.
        detections: Its row of detections, where that is known already.
    """

    layout: Layout
    png: bytes
    sha256: str
    wanted: frozenset[str]
    detections: Mapping[str, Any] | None = None

    def decoded(self) -> Image.Image:
        """Returns the pixels."""
        with Image.open(io.BytesIO(self.png), formats=["PNG"]) as stored:
            return stored.convert("RGB")


Look = Callable[[Iterable[Sequence[Picture]]], Generator[Rows, None, None]]
"""Looks at chunks of pictures and gives the rows of each chunk, in any order."""


class Looker:
    """The evaluators of a run and how they look.

    Args:
        benchmark: The benchmark.
        layouts: All layouts of the run, in full; they say which attribute words there are.
        evaluators: The evaluators.
    """

    def __init__(self, benchmark: Benchmark, layouts: Sequence[Layout], evaluators: Evaluators) -> None:
        self.layouts = layouts
        self.evaluators = evaluators
        self.canvas_size = benchmark.canvas_size
        self.published = benchmark.edition == "paper"
        self.file_format = benchmark.file_format
        self.compressed = benchmark.file_format == "jpeg-q75"
        self.captions = any(metric.name == "clip_score" for metric in benchmark.metrics)
        self.labels = _labels(layouts, asked_attributes(benchmark)) if self._can_crop else {}

    @property
    def _can_crop(self) -> bool:
        """Whether crops can be cut and compared; the published ones need no detector."""
        named = self.evaluators
        return named.image_text is not None and (self.published or named.detector is not None)

    def makers(self) -> dict[str, dict[str, Any]]:
        """By table, what its rows depend on; tables that this run does not have are left out."""
        evaluators, layouts = self.evaluators, self.layouts
        identity = evaluators.identity()
        if self.compressed:
            identity = {role: {**one, "sees": self.file_format} for role, one in identity.items()}
        made: dict[str, dict[str, Any]] = {}
        if evaluators.detector is not None:
            made["detections"] = identity["detector"]
        if self.labels:
            asked = {
                layout.image_key: [
                    [one.annotation_id, one.color, one.texture, one.phrase] for one in layout.requested
                ]
                for layout in layouts
            }
            maker: dict[str, Any] = {
                "image_text": identity["image_text"],
                "labels": {name: list(words) for name, words in self.labels.items()},
                "asked": asked,
            }
            if self.published:
                maker["crop"] = PUBLISHED_CROP
            else:
                maker |= {"detector": identity["detector"], "match": MATCH_RULE, "padding": CROP_PADDING}
            made["crops"] = maker
        if evaluators.features is not None:
            made["features"] = identity["features"]
        if self.captions and evaluators.image_text is not None:
            texts = {layout.image_key: layout.caption for layout in layouts}
            made["captions"] = {"image_text": identity["image_text"], "captions": texts}
        return made

    def look_at_all(self, chunks: Iterable[Sequence[Picture]]) -> Generator[Rows, None, None]:
        """Looks at chunk after chunk, in this process; the next one is read and decoded meanwhile."""
        left = iter(chunks)

        def following() -> tuple[Sequence[Picture], dict[str, Image.Image]] | None:
            pictures = next(left, None)
            return None if pictures is None else (pictures, self._decoded(pictures))

        with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
            read = reader.submit(following)
            while (chunk := read.result()) is not None:
                read = reader.submit(following)
                yield self._look(*chunk)

    def look(self, pictures: Sequence[Picture]) -> Rows:
        """Runs the evaluators on a chunk; each image is decoded once.

        Returns:
            The rows that are wanted.
        """
        return self._look(pictures, self._decoded(pictures))

    def _decoded(self, pictures: Sequence[Picture]) -> dict[str, Image.Image]:
        images = {one.layout.image_key: one.decoded() for one in pictures}
        return {key: jpeg_copy(image) for key, image in images.items()} if self.compressed else images

    def _look(self, pictures: Sequence[Picture], images: Mapping[str, Image.Image]) -> Rows:
        rows: Rows = {}
        rows["detections"] = self._detect(_wanting(pictures, "detections"), images)
        fresh = {row["image_key"]: row for row in rows["detections"]}
        rows["crops"] = [
            self._crop_row(one, images[one.layout.image_key], fresh.get(one.layout.image_key))
            for one in _wanting(pictures, "crops")
        ]
        rows["features"] = self._extract(_wanting(pictures, "features"), images)
        rows["captions"] = self._compare(_wanting(pictures, "captions"), images)
        return rows

    def _detect(self, pictures: Sequence[Picture], images: Mapping[str, Image.Image]) -> list[dict[str, Any]]:
        if not pictures or self.evaluators.detector is None:
            return []
        shown = [images[one.layout.image_key] for one in pictures]
        found = self.evaluators.detector.detect(shown)
        return [
            {**_head(picture), **_row_from_detections(detections, image)}
            for picture, image, detections in zip(pictures, shown, found, strict=True)
        ]

    def _extract(
        self, pictures: Sequence[Picture], images: Mapping[str, Image.Image]
    ) -> list[dict[str, Any]]:
        if not pictures or self.evaluators.features is None:
            return []
        features = self.evaluators.features.features([images[one.layout.image_key] for one in pictures])
        return [
            {**_head(picture), "features": np.array(vector, np.float32)}
            for picture, vector in zip(pictures, features, strict=True)
        ]

    def _compare(
        self, pictures: Sequence[Picture], images: Mapping[str, Image.Image]
    ) -> list[dict[str, Any]]:
        if not pictures or self.evaluators.image_text is None:
            return []
        texts = [one.layout.caption for one in pictures]
        shown = [images[one.layout.image_key] for one in pictures]
        scores = self.evaluators.image_text.similarity(shown, texts)
        return [
            {**_head(picture), "similarity": similarity}
            for picture, similarity in zip(pictures, scores.diagonal().tolist(), strict=True)
        ]

    def _crop_row(
        self, picture: Picture, image: Image.Image, seen: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            **_head(picture),
            "annotation_ids": [],
            "attributes": [],
            "scores": [],
            "phrase_scores": [],
        }
        cut = self._cutter(picture.layout, image, seen if seen is not None else picture.detections)
        for attribute, labels in self.labels.items():
            crops = cut(attribute)
            if crops and self.evaluators.image_text is not None:
                texts = [*attribute_prompts(labels), *(instance.phrase for instance, _ in crops)]
                scores = self.evaluators.image_text.similarity([crop for _, crop in crops], texts)
                row["annotation_ids"] += [instance.annotation_id for instance, _ in crops]
                row["attributes"] += [attribute] * len(crops)
                row["scores"] += scores[:, : len(labels)].tolist()
                row["phrase_scores"] += scores[:, len(labels) :].diagonal().tolist()
        return row

    def _cutter(
        self, layout: Layout, image: Image.Image, row: Mapping[str, Any] | None
    ) -> Callable[[str], list[Crop]]:
        """What cuts the crops of an image, by attribute."""
        if self.published or row is None:
            return lambda attribute: asked_crops(layout, image, attribute)
        seen = detections_from_row(row)
        matches = match_layout(layout, seen, self.canvas_size)
        return lambda attribute: found_crops(layout, image, seen, matches, attribute)


def _wanting(pictures: Sequence[Picture], table: str) -> list[Picture]:
    return [one for one in pictures if table in one.wanted]


def _head(picture: Picture) -> dict[str, Any]:
    return {"image_key": picture.layout.image_key, "image_sha256": picture.sha256}


def _labels(layouts: Sequence[Layout], attributes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    labels = {}
    for attribute in ATTRIBUTES:
        if attribute in attributes:
            asked = (asked_attribute(one, attribute) for layout in layouts for one in layout.requested)
            words = frozenset(word for word in asked if word is not None)
            if words:
                labels[attribute] = attribute_labels(attribute, words)
    return labels


def jpeg_copy(image: Image.Image) -> Image.Image:
    """The image after JPEG compression at quality 75 with PIL's other defaults, as published results are saved."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=75)
    stream.seek(0)
    with Image.open(stream, formats=["JPEG"]) as stored:
        return stored.convert("RGB")


def _row_from_detections(detections: Detections, image: Image.Image) -> dict[str, Any]:
    masks = detections.masks
    return {
        "height": image.height,
        "width": image.width,
        "boxes_xyxy": np.asarray(detections.boxes_xyxy, dtype=np.float32).reshape(-1, 4).tolist(),
        "scores": np.asarray(detections.scores, dtype=np.float32).tolist(),
        "categories": list(detections.categories),
        "masks": None if masks is None else [mask.counts for mask in masks],
    }


def detections_from_row(row: Mapping[str, Any]) -> Detections:
    """The detections that a row of the table "detections" holds."""
    masks = row["masks"]
    if masks is not None:
        masks = tuple(MaskRLE(row["height"], row["width"], counts) for counts in masks)
    return Detections(
        boxes_xyxy=np.asarray(row["boxes_xyxy"], dtype=np.float32).reshape(-1, 4),
        scores=np.asarray(row["scores"], dtype=np.float32),
        categories=tuple(row["categories"]),
        masks=masks,
    )
