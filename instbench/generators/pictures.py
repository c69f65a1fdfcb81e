"""Ready pictures on the benchmark's canvas."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from instbench.errors import InputError

__all__ = ["RESIZE_RULE", "open_picture", "to_canvas"]

RESIZE_RULE = "squash to the square canvas, PIL bicubic with antialiasing; untouched at canvas size"


def open_picture(path: Path) -> Image.Image:
    """Reads an image file as RGB.

    Raises:
        InputError: If it is missing or no image.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the images folder") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); replace the file") from None


def to_canvas(picture: Image.Image, canvas_size: int) -> Image.Image:
    """The picture squashed to the square canvas, as layouts are; see `RESIZE_RULE`."""
    if picture.size == (canvas_size, canvas_size):
        return picture
    return picture.resize((canvas_size, canvas_size), Image.Resampling.BICUBIC)
