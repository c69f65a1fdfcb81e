"""Notices when ready images are the real images of the benchmark.

Scoring the originals by accident gives the ceiling in the place of a model. Pictures are told by their bytes and by
thumbnails on the canvas, so re-encoded and resized copies are found too; cropped ones are not. Where the real images
are not at hand, the names and sizes of the originals speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench.errors import InputError
from instbench.generators.manifest import ImageFile, Manifest, thumbnail
from instbench.generators.real_images import source_picture
from instbench.layouts.types import Layout
from instbench.runs.atomic import sha256_file

__all__ = ["RealImages", "find_real_images"]

_MAX_DIFFERENCE = 4.0  # of 255; JPEG at quality 75 and other filters differ by about 1
_MIN_CORRELATION = 0.995  # the best drawn Shapes scenes reach about 0.98, autoencoded real ones 0.997
_FLAT = 2.0  # standard deviation below which a picture shows too little to be told apart
_SHARE_ALIKE = 0.5  # simple drawn scenes may resemble their originals by chance; an accident hits all images
_SHARE_NAMED = 0.9


@dataclass(frozen=True, slots=True)
class RealImages:
    """What was found.

    Attributes:
        compared: Images whose original was at hand.
        identical: Names of files with the bytes or the pixels of the original.
        alike: Names of files that look like the original, re-encoded or resized.
        same_names: Names of files with the size of an original that is not at hand.
        images: Images looked at.
    """

    compared: int = 0
    identical: tuple[str, ...] = field(default_factory=tuple)
    alike: tuple[str, ...] = field(default_factory=tuple)
    same_names: tuple[str, ...] = field(default_factory=tuple)
    images: int = 0

    @property
    def found(self) -> bool:
        """Whether the folder must be taken for the real images."""
        likenesses = len(self.identical) + len(self.alike)
        named = self.same_names and len(self.same_names) >= _SHARE_NAMED * (self.images - self.compared)
        return bool(self.identical or (self.alike and likenesses > _SHARE_ALIKE * self.compared) or named)

    def describe(self) -> str:
        """The evidence in words."""
        parts = []
        for names, what in (
            (self.identical, "identical"),
            (self.alike, "alike but re-encoded or resized"),
            (self.same_names, "named and sized as the originals"),
        ):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{len(names)} of {self.images} images {what}: {shown}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Counts as plain JSON values, for ``run.json``."""
        return {
            "compared": self.compared,
            "identical": len(self.identical),
            "alike": len(self.alike),
            "same_names": len(self.same_names),
        }


def find_real_images(manifest: Manifest, layouts: Sequence[Layout]) -> RealImages:
    """Compares the images of a folder with the real images of their layouts.

    Args:
        manifest: The folder.
        layouts: Layouts; those of Shapes are rendered, others know the path of their image or do not.

    Returns:
        What was found.
    """
    identical: list[str] = []
    alike: list[str] = []
    same_names: list[str] = []
    compared = images = 0
    canvas = (manifest.canvas_size, manifest.canvas_size)
    for layout in layouts:
        file = manifest.files.get(layout.image_key)
        if file is None:
            continue
        images += 1
        verdict = _compare(file, layout, manifest.canvas_size)
        if verdict is not None:
            compared += 1
            if verdict != "other":
                (identical if verdict == "identical" else alike).append(file.path.name)
        elif file.size == (layout.source_width, layout.source_height) != canvas:
            same_names.append(file.path.name)
    return RealImages(compared, tuple(identical), tuple(alike), tuple(same_names), images)


def _compare(file: ImageFile, layout: Layout, canvas_size: int) -> str | None:
    """Says "identical", "alike" or "other"; None if the original is not at hand."""
    try:
        original = thumbnail(source_picture(layout), canvas_size)
    except InputError:
        return None
    if layout.source_path is not None and sha256_file(Path(layout.source_path)) == file.sha256:
        return "identical"
    if original.std() < _FLAT:
        return "other"
    if np.array_equal(original, file.thumbnail):
        return "identical"
    return "alike" if _are_alike(original, file.thumbnail) else "other"


def _are_alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    a, b = first.astype(np.float64), second.astype(np.float64)
    if np.abs(a - b).mean() > _MAX_DIFFERENCE:
        return False
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return scale > 0 and float((a * b).sum()) / scale >= _MIN_CORRELATION
