"""Stage 3, observe: evaluators look at the stored images, each image decoded once."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from instbench import defaults
from instbench.evaluators.base import Detections
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
from instbench.progress import track
from instbench.runs.atomic import sha256_file
from instbench.runs.store import RunFolder
from instbench.runs.tables import ObservationTable

__all__ = ["Observations", "jpeg_copy", "observe_images", "read_detections"]

_KEYS = [("image_key", pa.string()), ("image_sha256", pa.string())]
_DETECTIONS = pa.schema(
    [
        *_KEYS,
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),
        ("scores", pa.list_(pa.float32())),
        ("categories", pa.list_(pa.string())),
        ("masks", pa.list_(pa.string())),
    ]
)
_CROPS = pa.schema(
    [
        *_KEYS,
        ("annotation_ids", pa.list_(pa.int64())),
        ("attributes", pa.list_(pa.string())),
        ("scores", pa.list_(pa.list_(pa.float32()))),
        ("phrase_scores", pa.list_(pa.float32())),
    ]
)
_FEATURES = pa.schema([*_KEYS, ("features", pa.list_(pa.float32()))])
_CAPTIONS = pa.schema([*_KEYS, ("similarity", pa.float32())])

CropKey = tuple[str, int, str]


@dataclass(slots=True)
class Observations:
    """What the evaluators saw.

    Attributes:
        detections: Detections by image key.
        crops: Similarities to the labels by (image key, annotation id, attribute); no entry where the
            instance was not found.
        phrase_scores: Similarities of the same crops to the phrases of their instances.
        labels: The label words by attribute.
        features: Image features by image key.
        caption_scores: Similarities of whole images to their captions by image key.
        missing: Keys of images that do not exist.
    """

    detections: dict[str, Detections] = field(default_factory=dict)
    crops: dict[CropKey, NDArray[np.float32]] = field(default_factory=dict)
    phrase_scores: dict[CropKey, float] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    caption_scores: dict[str, float] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


def observe_images(
    folder: RunFolder,
    layouts: Sequence[Layout],
    evaluators: Evaluators,
    *,
    canvas_size: int,
    attributes: Sequence[str] = (),
    published: bool = False,
    file_format: str = "png",
    captions: bool = False,
    only: Collection[str] | None = None,
    chunk: int = defaults.OBSERVE_CHUNK,
) -> Observations:
    """Runs the evaluators on the images that they have not seen yet.

    Rows are bound to the hash of the image file and to the evaluator's identity: a changed image or
    other weights are observed again, everything else is read back.

    Args:
        folder: The run folder, with its images.
        layouts: Full layouts, in order.
        evaluators: The evaluators.
        canvas_size: Side of the images in pixels.
        attributes: Attributes ("color", "texture") to score on crops.
        published: Crop the asked boxes, as the published script does, in place of the found objects.
        file_format: "png", or "jpeg-q75" to show evaluators the images after that compression.
        captions: Compare whole images with their captions.
        only: Keys of the images to look at, None for all; the rows are those of the whole run either way.
        chunk: Images between two writes.

    Returns:
        All observations, those read back included.
    """
    observer = _Observer(
        folder, layouts, evaluators, canvas_size, attributes, published, file_format, captions
    )
    hashes = {
        layout.image_key: sha256_file(folder.image_path(layout.image_key))
        for layout in layouts
        if (only is None or layout.image_key in only) and folder.has_image(layout.image_key, canvas_size)
    }
    todo = [
        layout
        for layout in layouts
        if layout.image_key in hashes and not observer.seen(layout.image_key, hashes[layout.image_key])
    ]
    chunks = [todo[start : start + chunk] for start in range(0, len(todo), chunk)]
    for part in track(chunks, description=f"observe, chunks of {chunk}"):
        observer.observe(part, hashes)
    return observer.finish([layout for layout in layouts if layout.image_key in hashes])


class _Observer:
    """The tables of a run and the evaluators that fill them."""

    def __init__(
        self,
        folder: RunFolder,
        layouts: Sequence[Layout],
        evaluators: Evaluators,
        canvas_size: int,
        attributes: Sequence[str],
        published: bool,
        file_format: str,
        captions: bool,
    ) -> None:
        self.folder = folder
        self.layouts = layouts
        self.evaluators = evaluators
        self.canvas_size = canvas_size
        self.published = published
        self.compressed = file_format == "jpeg-q75"
        self.labels = _labels(layouts, attributes) if self._can_crop else {}
        identity = evaluators.identity()
        if self.compressed:
            identity = {role: {**one, "sees": file_format} for role, one in identity.items()}
        where = folder.observations
        self.detections = self.crops = self.features = self.captions = None
        if evaluators.detector is not None:
            self.detections = ObservationTable(where, "detections", _DETECTIONS, identity["detector"])
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
            if published:
                maker["crop"] = PUBLISHED_CROP
            else:
                maker |= {"detector": identity["detector"], "match": MATCH_RULE, "padding": CROP_PADDING}
            self.crops = ObservationTable(where, "crops", _CROPS, maker)
        if evaluators.features is not None:
            self.features = ObservationTable(where, "features", _FEATURES, identity["features"])
        if captions and evaluators.image_text is not None:
            texts = {layout.image_key: layout.caption for layout in layouts}
            asked_of = {"image_text": identity["image_text"], "captions": texts}
            self.captions = ObservationTable(where, "captions", _CAPTIONS, asked_of)

    @property
    def _can_crop(self) -> bool:
        """Whether crops can be cut and compared; the published ones need no detector."""
        named = self.evaluators
        return named.image_text is not None and (self.published or named.detector is not None)

    @property
    def tables(self) -> list[ObservationTable]:
        known = (self.detections, self.crops, self.features, self.captions)
        return [table for table in known if table is not None]

    def seen(self, key: str, digest: str) -> bool:
        return all(table.has(key, digest) for table in self.tables)

    def observe(self, layouts: Sequence[Layout], hashes: Mapping[str, str]) -> None:
        images = {}
        for layout in layouts:
            with Image.open(self.folder.image_path(layout.image_key), formats=["PNG"]) as stored:
                image = stored.convert("RGB")
            images[layout.image_key] = jpeg_copy(image) if self.compressed else image
        if self.detections is not None:
            self._detect(self.detections, images, hashes)
        if self.crops is not None:
            for layout in layouts:
                if not self.crops.has(layout.image_key, hashes[layout.image_key]):
                    image = images[layout.image_key]
                    self.crops.add(self._crop_row(layout, image, hashes[layout.image_key]))
        if self.features is not None:
            self._extract(self.features, images, hashes)
        if self.captions is not None:
            self._compare(self.captions, layouts, images, hashes)
        for table in self.tables:
            table.flush()

    def _detect(
        self, table: ObservationTable, images: Mapping[str, Image.Image], hashes: Mapping[str, str]
    ) -> None:
        keys = [key for key in images if not table.has(key, hashes[key])]
        if not keys or self.evaluators.detector is None:
            return
        found = self.evaluators.detector.detect([images[key] for key in keys])
        for key, detections in zip(keys, found, strict=True):
            row = _row_from_detections(detections, images[key])
            table.add({"image_key": key, "image_sha256": hashes[key], **row})

    def _extract(
        self, table: ObservationTable, images: Mapping[str, Image.Image], hashes: Mapping[str, str]
    ) -> None:
        keys = [key for key in images if not table.has(key, hashes[key])]
        if not keys or self.evaluators.features is None:
            return
        features = self.evaluators.features.features([images[key] for key in keys])
        for key, vector in zip(keys, features, strict=True):
            table.add(
                {"image_key": key, "image_sha256": hashes[key], "features": np.array(vector, np.float32)}
            )

    def _compare(
        self,
        table: ObservationTable,
        layouts: Sequence[Layout],
        images: Mapping[str, Image.Image],
        hashes: Mapping[str, str],
    ) -> None:
        todo = [one for one in layouts if not table.has(one.image_key, hashes[one.image_key])]
        if not todo or self.evaluators.image_text is None:
            return
        texts = [layout.caption for layout in todo]
        scores = self.evaluators.image_text.similarity([images[one.image_key] for one in todo], texts)
        for layout, similarity in zip(todo, scores.diagonal().tolist(), strict=True):
            key = layout.image_key
            table.add({"image_key": key, "image_sha256": hashes[key], "similarity": similarity})

    def _crop_row(self, layout: Layout, image: Image.Image, digest: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "image_key": layout.image_key,
            "image_sha256": digest,
            "annotation_ids": [],
            "attributes": [],
            "scores": [],
            "phrase_scores": [],
        }
        cut = self._cutter(layout, image)
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

    def _cutter(self, layout: Layout, image: Image.Image) -> Callable[[str], list[Crop]]:
        """What cuts the crops of an image, by attribute."""
        if self.published or self.detections is None:
            return lambda attribute: asked_crops(layout, image, attribute)
        seen = _detections_from_row(self.detections.rows[layout.image_key])
        matches = match_layout(layout, seen, self.canvas_size)
        return lambda attribute: found_crops(layout, image, seen, matches, attribute)

    def finish(self, layouts: Sequence[Layout]) -> Observations:
        keys = [layout.image_key for layout in layouts]
        for table in self.tables:
            table.finish(keys)
        result = Observations(labels=self.labels)
        result.missing = {layout.image_key for layout in self.layouts} - set(keys)
        for key in keys:
            if self.detections is not None:
                result.detections[key] = _detections_from_row(self.detections.rows[key])
            if self.features is not None:
                vector = self.features.rows[key]["features"]
                result.features[key] = np.asarray(vector, dtype=np.float32)
            if self.captions is not None:
                result.caption_scores[key] = float(self.captions.rows[key]["similarity"])
            if self.crops is not None:
                row = self.crops.rows[key]
                columns = (row["annotation_ids"], row["attributes"], row["scores"], row["phrase_scores"])
                for annotation_id, attribute, scores, phrase_score in zip(*columns, strict=True):
                    result.crops[key, annotation_id, attribute] = np.asarray(scores, dtype=np.float32)
                    result.phrase_scores[key, annotation_id, attribute] = float(phrase_score)
        return result


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


def _detections_from_row(row: Mapping[str, Any]) -> Detections:
    masks = row["masks"]
    if masks is not None:
        masks = tuple(MaskRLE(row["height"], row["width"], counts) for counts in masks)
    return Detections(
        boxes_xyxy=np.asarray(row["boxes_xyxy"], dtype=np.float32).reshape(-1, 4),
        scores=np.asarray(row["scores"], dtype=np.float32),
        categories=tuple(row["categories"]),
        masks=masks,
    )


def read_detections(folder: RunFolder) -> dict[str, Detections]:
    """Reads the stored detections of a run, by image key, whatever detector made them."""
    path = folder.observations / "detections.parquet"
    if not path.exists():
        return {}
    return {row["image_key"]: _detections_from_row(row) for row in pq.read_table(path).to_pylist()}
