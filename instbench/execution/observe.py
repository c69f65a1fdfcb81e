"""Stage 3, observe: evaluators look at the stored images, each image decoded once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from instbench import defaults
from instbench.benchmarks.schema import Benchmark
from instbench.evaluators.base import Detections
from instbench.execution.look import Look, Looker, Picture, Rows, detections_from_row
from instbench.execution.session import Evaluators
from instbench.layouts.types import Layout
from instbench.progress import track
from instbench.runs.store import RunFolder
from instbench.runs.tables import ObservationTable

__all__ = ["Observations", "observe_images", "read_detections"]

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
_SCHEMAS = {"detections": _DETECTIONS, "crops": _CROPS, "features": _FEATURES, "captions": _CAPTIONS}

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
    benchmark: Benchmark,
    layouts: Sequence[Layout],
    evaluators: Evaluators,
    *,
    only: Collection[str] | None = None,
    chunk: int = defaults.OBSERVE_CHUNK,
    look: Look | None = None,
) -> Observations:
    """Has the evaluators look at the images that they have not seen yet.

    Rows are bound to the hash of the image file and to the evaluator's identity: a changed image or
    other weights are observed again, everything else is read back.

    Args:
        folder: The run folder, with its images.
        benchmark: The benchmark; says what is looked at and how.
        layouts: Full layouts, in order.
        evaluators: The evaluators.
        only: Keys of the images to look at, None for all; the rows are those of the whole run either way.
        chunk: Images between two writes.
        look: Who looks; None for this process.

    Returns:
        All observations, those read back included.
    """
    looker = Looker(benchmark, layouts, evaluators)
    tables = _Tables(folder, looker)
    hashes = {
        layout.image_key: folder.pictures.sha256(layout.image_key)
        for layout in layouts
        if (only is None or layout.image_key in only)
        and folder.has_image(layout.image_key, benchmark.canvas_size)
    }
    todo = [
        layout
        for layout in layouts
        if layout.image_key in hashes and not tables.seen(layout.image_key, hashes[layout.image_key])
    ]
    chunks = [todo[start : start + chunk] for start in range(0, len(todo), chunk)]
    # Read when asked for: whoever looks decides how many images are in memory.
    pictures = ([tables.picture(one, hashes[one.image_key]) for one in part] for part in chunks)
    if chunks:
        # Closed whatever happens: nobody reads ahead in a folder that is let go of.
        with closing((look or looker.look_at_all)(pictures)) as seen:
            looked_at = track(
                seen,
                description="observe",
                total=len(todo),
                unit="images",
                size=lambda rows: max(map(len, rows.values()), default=0),
            )
            for rows in looked_at:
                tables.add(rows)
    return tables.finish([layout for layout in layouts if layout.image_key in hashes])


class _Tables:
    """The tables of a run, one row per image."""

    def __init__(self, folder: RunFolder, looker: Looker) -> None:
        self.folder = folder
        self.looker = looker
        self.by_name = {
            name: ObservationTable(folder.observations, name, _SCHEMAS[name], maker)
            for name, maker in looker.makers().items()
        }

    def seen(self, key: str, digest: str) -> bool:
        return all(table.has(key, digest) for table in self.by_name.values())

    def picture(self, layout: Layout, digest: str) -> Picture:
        """An image with what is known of it."""
        key = layout.image_key
        wanted = frozenset(name for name, table in self.by_name.items() if not table.has(key, digest))
        known = None
        if "detections" in self.by_name and "detections" not in wanted:
            known = self.by_name["detections"].rows[key]
        return Picture(layout, self.folder.pictures.read(key), digest, wanted, known)

    def add(self, rows: Rows) -> None:
        """Adds the rows of a chunk and writes them."""
        for name, table in self.by_name.items():
            for row in rows.get(name, ()):
                table.add(row)
            table.flush()

    def finish(self, layouts: Sequence[Layout]) -> Observations:
        keys = [layout.image_key for layout in layouts]
        for table in self.by_name.values():
            table.finish(keys)
        result = Observations(labels=self.looker.labels)
        result.missing = {layout.image_key for layout in self.looker.layouts} - set(keys)
        for key in keys:
            rows = {name: table.rows[key] for name, table in self.by_name.items()}
            if "detections" in rows:
                result.detections[key] = detections_from_row(rows["detections"])
            if "features" in rows:
                result.features[key] = np.asarray(rows["features"]["features"], dtype=np.float32)
            if "captions" in rows:
                result.caption_scores[key] = float(rows["captions"]["similarity"])
            if "crops" in rows:
                row = rows["crops"]
                columns = (row["annotation_ids"], row["attributes"], row["scores"], row["phrase_scores"])
                for annotation_id, attribute, scores, phrase_score in zip(*columns, strict=True):
                    result.crops[key, annotation_id, attribute] = np.asarray(scores, dtype=np.float32)
                    result.phrase_scores[key, annotation_id, attribute] = float(phrase_score)
        return result


def read_detections(folder: RunFolder) -> dict[str, Detections]:
    """Reads the stored detections of a run, by image key, whatever detector made them."""
    path = folder.observations / "detections.parquet"
    if not path.exists():
        return {}
    return {row["image_key"]: detections_from_row(row) for row in pq.read_table(path).to_pylist()}
