"""The ceiling: the real images, through the same canvas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.generators.pictures import RESIZE_RULE, open_picture, to_canvas
from instbench.layouts.types import Condition, Layout

__all__ = ["RealImagesGenerator"]

_ALL_SCENES = 999_999


class RealImagesGenerator:
    """Gives back the image that a layout was made from.

    Layouts read with an images folder carry the path of their image; Shapes layouts are rendered.

    Args:
        folder: Take images from this folder instead, by the name of the layout's source file.

    Raises:
        InputError: If the folder does not exist.
    """

    conditions: frozenset[Condition] = frozenset(Condition)

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folder of the real images")
        self._folder = folder

    def identity(self) -> Mapping[str, Any]:
        """Kind and resize rule; which images they are is said by the layouts."""
        return {"kind": "real-images", "resize": RESIZE_RULE}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Nothing is sampled: all settings are None."""
        return SamplingSettings()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields the real image of each layout.

        Raises:
            InputError: If an image is missing or unknown.
        """
        for request in requests:
            picture = to_canvas(self._picture(request.layout), request.canvas_size)
            yield GeneratedImage(request.layout.image_key, picture)

    def _picture(self, layout: Layout) -> Image.Image:
        if layout.source_path is not None:
            path = Path(layout.source_path)
            return open_picture(path if self._folder is None else self._folder / path.name)
        if self._folder is None and layout.dataset.startswith("shapes"):
            from instbench.datasets.shapes import shapes_dataset

            world, _, split = layout.dataset.rpartition("-")
            return shapes_dataset(world, split, _ALL_SCENES).image(layout.image_id)
        raise InputError(
            f"{layout.image_key}: the layout has no real image; give the folder of the images with --images"
        )
