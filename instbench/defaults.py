"""The defaults of every verb, in one place: the command line and `instbench.api` read them here."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "AUTO_BATCH_SIZE",
    "BATCH_SIZE",
    "BYTES_PER_IMAGE",
    "BYTES_PER_OBSERVATION",
    "BYTES_PER_PIXEL",
    "CANVAS_SIZE",
    "CONVERT_DTYPE",
    "DEMO_LIMIT",
    "DEVICE",
    "DTYPE",
    "EDITION",
    "EXECUTOR",
    "IMAGE_STORES",
    "MODEL",
    "MOST_BATCH_SIZE",
    "OBSERVE_CHUNK",
    "PNG_LEVEL",
    "SEED",
    "SMALL_CANVAS",
    "StoreKind",
]

MODEL = "reference"
EDITION = "strict"
EXECUTOR = "local"
SEED = 0
DEVICE = "auto"
DTYPE = "auto"
BATCH_SIZE = "auto"
CANVAS_SIZE = 512
"""Side in pixels of the canvas that `data prepare` writes ground truth for."""
CONVERT_DTYPE = "float32"
AUTO_BATCH_SIZE = 8
"""Images per generator call for ``--batch-size auto`` on the CPU, where the canvas is small; else 1."""
MOST_BATCH_SIZE = 32
"""Images per generator call that ``--batch-size auto`` grows to on a GPU."""
BYTES_PER_PIXEL = 2.0
"""Disk space of a PNG per pixel, where there is none to measure; photographs take about as much."""
BYTES_PER_OBSERVATION = 20_000
"""Disk space per image for logs, detections with masks, crops and features of 2,048 numbers."""
PNG_LEVEL = 4
"""Compression of pictures; 6 takes twice the time to save 1 % of a photograph at 512x512."""
SMALL_CANVAS = 256
"""Side in pixels up to which a canvas is small."""
BYTES_PER_IMAGE = 64 * 2**20
"""Memory that one more image in a call takes on the CPU, at most, where the canvas is small."""
OBSERVE_CHUNK = 32
"""Images decoded and observed between two writes of the observations."""
StoreKind = Literal["files", "archives"]
"""How a run folder keeps its images."""
IMAGE_STORES: tuple[StoreKind, ...] = get_args(StoreKind)
DEMO_LIMIT = 24
"""Layouts per benchmark in the demo."""
