"""Weights of other projects that have a name here: where they come from and where they are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instbench.datasets.home import ENVIRONMENT_VARIABLE, data_home
from instbench.errors import InputError
from instbench.runs.atomic import sha256_file

__all__ = ["INCEPTION", "YOLO", "KnownWeights", "find_weights", "weights_home"]


@dataclass(frozen=True, slots=True)
class KnownWeights:
    """A file that users fetch themselves.

    Attributes:
        file_name: Name in the folder of weights.
        url: Where its makers publish it.
        sha256: Hash of the published file, or None where it is not fixed.
    """

    file_name: str
    url: str
    sha256: str | None = None


_YOLO_ASSETS = "https://github.com/ultralytics/assets/releases/download/v8.3.0"

YOLO = {name: KnownWeights(f"{name}.pt", f"{_YOLO_ASSETS}/{name}.pt") for name in ("yolov8m-seg", "yolov8m")}
"""Detectors of ultralytics for COCO."""

INCEPTION = KnownWeights(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""The Inception v3 of FID, as torch-fidelity and pytorch-fid publish it."""


def weights_home() -> Path:
    """Folder of fetched weights: ``weights`` in `data_home`. It need not exist."""
    return data_home() / "weights"


def find_weights(known: KnownWeights) -> Path:
    """Finds a known file in the folder of weights.

    Returns:
        Its path.

    Raises:
        InputError: It is not there (the message says where to get it and where to put it), or it is another file.
    """
    path = weights_home() / known.file_name
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; download {known.url} and put it there "
            f"({ENVIRONMENT_VARIABLE} moves the folder), or give its path"
        )
    if known.sha256 is not None:
        digest = sha256_file(path)
        if digest != known.sha256:
            raise InputError(
                f"{path}: SHA-256 {digest[:12]}…, expected {known.sha256[:12]}…; download {known.url} again"
            )
    return path
