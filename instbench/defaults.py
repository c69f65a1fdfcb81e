"""The defaults of every verb, in one place: the command line and `instbench.api` read them here."""

from __future__ import annotations

__all__ = [
    "AUTO_BATCH_SIZE",
    "BATCH_SIZE",
    "CANVAS_SIZE",
    "CONVERT_DTYPE",
    "DEMO_LIMIT",
    "DEVICE",
    "DTYPE",
    "EDITION",
    "EXECUTOR",
    "MODEL",
    "OBSERVE_CHUNK",
    "SEED",
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
"""Images per generator call for ``--batch-size auto``; halved when memory runs out."""
OBSERVE_CHUNK = 32
"""Images decoded and observed between two writes of the observations."""
DEMO_LIMIT = 24
"""Layouts per benchmark in the demo."""
