"""Measures the harness itself at the size of Stable Diffusion 1.5, with networks that sleep as if a GPU worked.

``python -m tests.instbench.execution.overhead`` makes, observes and scores 128 pictures of 512x512 pixels with
stand-ins. It says how long the run was outside of them, per image and stage, and how much of that the processor
worked in the thread that networks are called from: on a busy machine that is the figure to look at. A run of four
pictures goes before, for the imports.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instbench import api
from instbench.evaluators.base import Detections
from instbench.execution.session import Session
from instbench.execution.timing import Stages
from instbench.generators.base import GeneratedImage, GenerationRequest
from instbench.generators.pictures import open_picture, to_canvas
from instbench.layouts import rle
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText, write_benchmark

__all__ = ["main", "measure", "photograph"]

OBJECTS = 7
"""Objects asked for and seen in each picture; COCO has 7.36."""


def photograph(size: int, seed: int) -> Image.Image:
    """A picture that compresses like a photograph: its power falls with frequency, with a little grain on top."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf

    def cloud() -> np.ndarray:
        phases = np.exp(2j * np.pi * draw.random(frequency.shape))
        plane = np.fft.irfft2(phases / frequency**1.3, s=(size, size))
        return plane / plane.std()

    shared = cloud()
    planes = [125 + 45 * shared + 15 * cloud() + draw.normal(0, 1.5, (size, size)) for _ in range(3)]
    return Image.fromarray(np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8))


def discs(width: int, height: int) -> list[tuple[float, float, float]]:
    """Centres and radii in pixels."""
    side = min(width, height)
    shares = ((0.1 + 0.13 * index, 0.2 + 0.1 * index, 0.06 + 0.02 * (index % 4)) for index in range(OBJECTS))
    return [(x * width, y * height, radius * side) for x, y, radius in shares]


def write_data(folder: Path, images: int) -> None:
    """Writes a COCO file of 640x480 pictures with the same discs in each, and captions."""
    corners = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    records = [
        {"id": index, "file_name": f"{index}.jpg", "width": 640, "height": 480}
        for index in range(1, images + 1)
    ]
    annotations = [
        {
            "id": 100 * record["id"] + number,
            "image_id": record["id"],
            "category_id": 1 + number % 2,
            "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
            "segmentation": [
                np.stack([x + radius * np.cos(corners), y + radius * np.sin(corners)], -1).ravel().tolist()
            ],
            "area": np.pi * radius**2,
            "iscrowd": 0,
        }
        for record in records
        for number, (x, y, radius) in enumerate(discs(640, 480))
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    captions = [{"id": one["id"], "image_id": one["id"], "caption": "A cat and a dog."} for one in records]
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"images": records, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(whole))
    (folder / "captions.json").write_text(json.dumps({"images": records, "annotations": captions}))


class Sleeper(FakeGenerator):
    """Hands ready pictures over, a batch at a time, after a sleep."""

    def __init__(self, pictures: Sequence[Image.Image], seconds: float) -> None:
        super().__init__()
        self._pictures = cycle(pictures)
        self._seconds = seconds

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        time.sleep(self._seconds * len(requests))
        for request, picture in zip(requests, islice(self._pictures, len(requests)), strict=True):
            yield GeneratedImage(request.layout.image_key, picture.copy(), {"unet_calls": 374})


class SleepyDetector(FakeDetector):
    """Sees the same discs in every picture, after a sleep."""

    def __init__(self, size: int, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        rows, columns = np.mgrid[:size, :size]
        found = discs(size, size)
        boxes = [(x - radius, y - radius, x + radius, y + radius) for x, y, radius in found]
        masks = [rle.encode(np.hypot(columns - x, rows - y) < radius) for x, y, radius in found]
        self._seen = Detections(
            np.asarray(boxes, np.float32),
            np.linspace(0.9, 0.3, OBJECTS, dtype=np.float32),
            tuple(islice(cycle(self.categories), OBJECTS)),
            tuple(masks),
        )

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        time.sleep(self._seconds * len(images))
        return [self._seen] * len(images)


class Vectors(FakeFeatures):
    """2,048 numbers of each picture."""

    num_features = 2048

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.ones((len(images), self.num_features), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a run took.

    Attributes:
        record: Its record.
        own: Processor seconds of the main thread by stage, outside of the networks.
        whole: Processor seconds of the process, all threads and stages.
    """

    record: RunRecord
    own: dict[str, float]
    whole: float


@contextmanager
def processor_seconds(own: dict[str, float]) -> Iterator[None]:
    """Within the block, runs add the processor seconds of their main thread to `own`."""
    run, network = Stages.run, Stages.network

    @contextmanager
    def timed_run(stages: Stages, stage: str) -> Iterator[None]:
        start = time.thread_time()
        with run(stages, stage):
            yield
        own[stage] = own.get(stage, 0.0) + time.thread_time() - start

    @contextmanager
    def timed_network(stages: Stages) -> Iterator[None]:
        start = time.thread_time()
        with network(stages):
            yield
        own[stages._stage] = own.get(stages._stage, 0.0) - (time.thread_time() - start)

    Stages.run, Stages.network = timed_run, timed_network  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stages.run, Stages.network = run, network  # type: ignore[method-assign]


def measure(
    folder: Path,
    pictures: Sequence[Image.Image],
    *,
    images: int,
    batch: int,
    generating: float,
    observing: float,
    store: str = "files",
) -> Overhead:
    """Runs the stand-ins once.

    Args:
        folder: Where data and run are written.
        pictures: What the generator hands over, in turn; squares of one size.
        images: How many to make.
        batch: Images per call of the generator.
        generating: Seconds in the generator per image.
        observing: Seconds in the detector per image.
        store: How images are kept: "files" or "archives".
    """
    size = pictures[0].width
    write_data(folder / "data", images)
    changes: dict[str, Any] = {
        "canvas_size": size,
        "metrics": [{"name": one} for one in ("box_ap50", "mask_iou", "clip_score")],
        "dataset": {"kind": "coco", "annotations": "instances.json", "captions": "captions.json"},
    }
    benchmark = write_benchmark(folder / "data", **changes)
    stand_ins = {
        GENERATORS: lambda: Sleeper(pictures, generating),
        DETECTORS: lambda: SleepyDetector(size, observing),
        IMAGE_TEXT: FakeImageText,
        FEATURES: Vectors,
    }
    for registry, kind in stand_ins.items():
        registry.add(Entry("fake", "sleeps", kind))
    own: dict[str, float] = {}
    start = time.process_time()
    try:
        session = Session(batch_size=batch)
        with processor_seconds(own):
            api.run(str(benchmark), folder / "run", model="fake", session=session, image_store=store)
    finally:
        for registry in stand_ins:
            registry.remove("fake")
    return Overhead(RunFolder(folder / "run").read_run(), own, time.process_time() - start)


def table(overhead: Overhead, images: int) -> list[str]:
    """Where the time outside of the networks went, as a Markdown table."""
    record = overhead.record
    lines = [
        "| stage | elapsed s | outside the networks: ms per image | processor ms per image in this thread |",
        "|---|---|---|---|",
    ]
    for stage, elapsed in record.timings.items():
        outside = elapsed - record.seconds_in_networks.get(stage, 0.0)
        own = 1000 * overhead.own[stage] / images
        lines.append(f"| {stage} | {elapsed:.2f} | {1000 * outside / images:.1f} | {own:.1f} |")
    share = record.totals.share_outside_networks if record.totals is not None else None
    lines += ["", f"processor, all threads: {1000 * overhead.whole / images:.1f} ms per image"]
    return [*lines, f"share outside the networks: {share or 0.0:.2%}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and writes a table to the standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, help="a folder of photographs in place of made-up ones")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default: 512)")
    parser.add_argument("--images", type=int, default=128, help="how many (default: 128)")
    parser.add_argument("--batch-size", type=int, default=4, help="images per call (default: 4)")
    parser.add_argument(
        "--generating", type=float, default=4.9, help="s per image in the generator (default: 4.9)"
    )
    parser.add_argument(
        "--observing", type=float, default=0.1, help="s per image in the detector (default: 0.1)"
    )
    parser.add_argument("--image-store", default="files", help="files or archives (default: files)")
    parser.add_argument(
        "-o", "--output", type=Path, help="an empty folder to work in (default: a temporary one)"
    )
    options = parser.parse_args(argv)
    if options.pictures is None:
        pictures = [photograph(options.size, seed) for seed in range(min(8, options.images))]
    else:
        paths = sorted(path for path in options.pictures.iterdir() if path.suffix.lower() in (".jpg", ".png"))
        pictures = [to_canvas(open_picture(path), options.size) for path in paths[: options.images]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        measure(folder / "first", pictures, images=4, batch=4, generating=0.0, observing=0.0)
        overhead = measure(
            folder / "measured",
            pictures,
            images=options.images,
            batch=options.batch_size,
            generating=options.generating,
            observing=options.observing,
            store=options.image_store,
        )
    sys.stdout.write("\n".join(table(overhead, options.images)) + "\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    raise SystemExit(main())
