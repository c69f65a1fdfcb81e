"""Images made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.generators.checkpoint import hash_files
from instbench.generators.pictures import RESIZE_RULE, open_picture, to_canvas
from instbench.layouts.types import Condition, Layout
from instbench.runs.atomic import canonical_json, sha256_bytes

__all__ = ["ImageFolderGenerator"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageFolderGenerator:
    """Takes images from a folder, by image key or image id.

    Names tried: ``<image key>``, the image id, and the image id with 12 digits (as COCO names its files), each
    with .png, .jpg, .jpeg or .webp.

    Args:
        folder: The folder.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """

    conditions: frozenset[Condition] = frozenset(Condition)

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give a folder of images")
        self._folder = folder
        self._files: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                self._files.setdefault(path.stem, []).append(path)
        if not self._files:
            raise InputError(f"{folder}: holds no image ({', '.join(_SUFFIXES)}); give a folder of images")

    @cached_property
    def _digest(self) -> str:
        names = [path for paths in self._files.values() for path in paths]
        return sha256_bytes(canonical_json(hash_files(self._folder, names)).encode())

    def identity(self) -> Mapping[str, Any]:
        """Kind, resize rule and one SHA-256 over the names and contents of all images."""
        return {"kind": "image-folder", "resize": RESIZE_RULE, "sha256": {"images": self._digest}}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Nothing is sampled: all settings are None."""
        return SamplingSettings()

    def path_of(self, layout: Layout) -> Path:
        """The file that answers a layout.

        Raises:
            InputError: If there is none, or more than one.
        """
        stems = dict.fromkeys((layout.image_key, str(layout.image_id), f"{layout.image_id:012d}"))
        found = [path for stem in stems for path in self._files.get(stem, [])]
        if len(found) == 1:
            return found[0]
        if not found:
            raise InputError(f"{self._folder}: no image for {layout.image_key}; add {layout.image_key}.png")
        names = ", ".join(path.name for path in found)
        raise InputError(f"{self._folder}: {names} all answer {layout.image_key}; keep one of them")

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields the image of each layout.

        Raises:
            InputError: If an image is missing, ambiguous or unreadable.
        """
        for request in requests:
            picture = open_picture(self.path_of(request.layout))
            yield GeneratedImage(
                request.layout.image_key,
                to_canvas(picture, request.canvas_size),
                {"source_size": [picture.width, picture.height]},
            )
