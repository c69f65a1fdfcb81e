"""One square canvas for images of any size: the short side is scaled to it, the middle is kept.

The published training does the same (`dataset/decode_item.py`, `center_crop_arr` with `image_size: 512` of
`configs/train_sd15.yaml`). Without a size, images stay as they are and must be equally large.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Canvas", "load_image"]


@dataclass(frozen=True)
class Canvas:
    """How the pixels of one image reach its canvas.

    Attributes:
        source: ``(width, height)`` of the image.
        side: Side of the canvas, or None for the image as it is.
    """

    source: tuple[int, int]
    side: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of the canvas."""
        return self.source if self.side is None else (self.side, self.side)

    @property
    def scaled(self) -> tuple[int, int]:
        """``(width, height)`` of the whole image after scaling, before the cut."""
        if self.side is None:
            return self.source
        scale = self.side / min(self.source)
        return (round(self.source[0] * scale), round(self.source[1] * scale))

    @property
    def corner(self) -> tuple[int, int]:
        """``(left, top)`` of the part that is kept, in pixels of the scaled image."""
        return ((self.scaled[0] - self.size[0]) // 2, (self.scaled[1] - self.size[1]) // 2)

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A box in pixels of the image as xyxy relative to the canvas, cut at its edges."""
        factors = (self.scaled[0] / self.source[0], self.scaled[1] / self.source[1])
        (left, top), (across, down) = self.corner, self.size
        corners = (
            (x * factors[0] - left) / across,
            (y * factors[1] - top) / down,
            ((x + width) * factors[0] - left) / across,
            ((y + height) * factors[1] - top) / down,
        )
        x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in corners)
        return x0, y0, x1, y1

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask of the image, ``[height, width]`` of 0 and 1, on the canvas (nearest neighbour)."""
        if self.side is None:
            return mask
        scaled = Image.fromarray(mask).resize(self.scaled, Image.Resampling.NEAREST)
        left, top = self.corner
        return np.asarray(scaled)[top : top + self.side, left : left + self.side]

    def image(self, picture: Image.Image) -> Image.Image:
        """The image on the canvas; a large one is halved by averages first, then scaled bicubically."""
        if self.side is None:
            return picture
        while min(picture.size) >= 2 * self.side:
            halved = (picture.size[0] // 2, picture.size[1] // 2)
            picture = picture.resize(halved, Image.Resampling.BOX)
        picture = picture.resize(self.scaled, Image.Resampling.BICUBIC)
        left, top = self.corner
        return picture.crop((left, top, left + self.side, top + self.side))


def load_image(path: Path, size: tuple[int, int], side: int | None) -> NDArray[np.uint8]:
    """Reads an image onto its canvas.

    Args:
        path: The file; its orientation tag is ignored, as COCO's annotations ignore it.
        size: ``(width, height)`` that the annotation file states.
        side: Side of the canvas, or None.

    Returns:
        uint8 RGB ``[H, W, 3]``.

    Raises:
        ValueError: If the file is missing, damaged or of another size.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read ({reason}); copy the image again") from None
    if picture.size != size:
        raise ValueError(
            f"{path}: {picture.size[0]}x{picture.size[1]} px, instances.json says {size[0]}x{size[1]}; "
            "correct its width and height"
        )
    return np.asarray(Canvas(size, side).image(picture))
