"""Ready pictures on the benchmark's canvas."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from instbench.errors import InputError

__all__ = ["FORMATS", "MAX_PIXELS", "RESIZE_RULE", "open_picture", "to_canvas"]

MAX_PIXELS = 2**26
"""Pictures with more pixels are refused before they are decoded: small files can unfold to many gigabytes."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Formats that are read. Pillow knows more, one of which (EPS) is a program that it hands to an interpreter."""

_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)

RESIZE_RULE = "squash to the square canvas, PIL bicubic with antialiasing; untouched at canvas size"


def open_picture(path: Path) -> Image.Image:
    """Reads a PNG, JPEG, WebP, BMP or TIFF file as RGB, all of it: a truncated file is refused.

    Raises:
        InputError: If it is missing, no such image, damaged, or of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width}x{picture.height} pixels are too many")
            return picture.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the images folder") from None
    except _DAMAGED as error:
        reason = f"no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{path}: cannot be read as an image ({reason}); replace the file") from None


def to_canvas(picture: Image.Image, canvas_size: int) -> Image.Image:
    """The picture squashed to the square canvas, as layouts are; see `RESIZE_RULE`."""
    if picture.size == (canvas_size, canvas_size):
        return picture
    return picture.resize((canvas_size, canvas_size), Image.Resampling.BICUBIC)
