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

__all__ = ["RealImagesGenerator", "source_picture"]

_ALL_SCENES = 999_999


class RealImagesGenerator:
    """Gives back the image that a layout was made from.

    Layouts read with an images folder carry the path of their image; Shapes layouts are rendered.
    """

    conditions: frozenset[Condition] = frozenset(Condition)

    def identity(self) -> Mapping[str, Any]:
        """Kind and resize rule; which images they are is said by the data's part of a run's identity."""
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
            picture = to_canvas(source_picture(request.layout), request.canvas_size)
            yield GeneratedImage(request.layout.image_key, picture)


def source_picture(layout: Layout) -> Image.Image:
    """The real image of a layout at its own size.

    Raises:
        InputError: If it is missing, unreadable or unknown.
    """
    if layout.source_path is not None:
        return open_picture(Path(layout.source_path))
    if layout.dataset.startswith("shapes"):
        from instbench.datasets.shapes import shapes_dataset

        world, _, split = layout.dataset.rpartition("-")
        return shapes_dataset(world, split, _ALL_SCENES).image(layout.image_id)
    raise InputError(
        f"{layout.image_key}: the layout has no real image; give the folder of the images with --images"
    )
