"""Images made elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.generators.manifest import Manifest, list_images, read_manifest
from instbench.generators.pictures import RESIZE_RULE, open_picture, to_canvas
from instbench.generators.real_photos import RealImages, find_real_images
from instbench.layouts.types import Condition, Layout
from instbench.runs.atomic import canonical_json, sha256_bytes, sha256_file

__all__ = ["FolderRules", "ImageFolderGenerator"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderRules:
    """What a folder may be like.

    Attributes:
        allow_missing: Missing and unreadable images are misses; extra ones are left out.
        resize: Images of another size than the canvas are resized, see `RESIZE_RULE`.
        allow_real: The real images of the benchmark may be scored.
    """

    allow_missing: bool = False
    resize: bool = False
    allow_real: bool = False


class ImageFolderGenerator:
    """Takes images from a folder; `read_manifest` says how files are named.

    Args:
        folder: The folder.
        rules: What the folder may be like.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """

    conditions: frozenset[Condition] = frozenset(Condition)

    def __init__(self, folder: Path, rules: FolderRules = FolderRules()) -> None:
        self._listing = list_images(folder)
        self._folder = folder
        self._rules = rules
        self._manifest: Manifest | None = None
        self._real = RealImages()

    def for_layouts(
        self,
        layouts: Sequence[Layout],
        canvas_size: int,
        *,
        names: Mapping[int, str] | None = None,
        complete: bool = True,
        benchmark: str = "the benchmark",
    ) -> ImageFolderGenerator:
        """The same folder, checked against what is asked.

        Args:
            layouts: What is asked for.
            canvas_size: Side of the canvas in pixels.
            names: File names of the source images by image id, where known.
            complete: Whether these are all layouts; if not, extra images are those of the others.
            benchmark: Name for messages.

        Raises:
            InputError: If the folder breaks its rules; `details` lists every file.
        """
        checked = ImageFolderGenerator(self._folder, self._rules)
        manifest = checked._manifest = read_manifest(self._folder, layouts, canvas_size, names)
        checked._real = find_real_images(manifest, layouts)
        checked._refuse_real(benchmark)
        checked._refuse_misfits(complete)
        return checked

    def _refuse_real(self, benchmark: str) -> None:
        if not self._real.found:
            return
        text = f"{self._folder}: holds the real images of {benchmark} ({self._real.describe()})"
        if not self._rules.allow_real:
            raise InputError(
                f"{text}; scoring them measures the ceiling, not a model: give the generated images, "
                "or add --allow-real to `instbench score`",
                details=tuple(self._checked.lines()),
            )
        logger.warning("%s; scored all the same, as --allow-real says", text)

    def _refuse_misfits(self, complete: bool) -> None:
        manifest, rules = self._checked, self._rules
        tolerated = rules.allow_missing
        wrong = [
            (len(manifest.missing), "missing", tolerated),
            (len(manifest.unreadable), "unreadable", tolerated),
            (len(manifest.ambiguous), "ambiguous", False),
            (len(manifest.wrong_size), "of another size", rules.resize),
            (len(manifest.extra), "extra", tolerated or not complete),
        ]
        refused = [f"{count} {what}" for count, what, allowed in wrong if count and not allowed]
        if not refused:
            if manifest.missing:
                logger.warning(
                    "%s: %d images missing; their objects are misses", self._folder, len(self.absent)
                )
            return
        fixes = []
        if not tolerated and (manifest.missing or manifest.unreadable or manifest.extra):
            fixes.append("--allow-missing to count missing images as misses and leave extra ones out")
        if manifest.wrong_size and not rules.resize:
            fixes.append("--resize to squash images to the canvas")
        if manifest.ambiguous:
            fixes.append("rename what is ambiguous")
        first = next(manifest.lines())
        raise InputError(
            f"{self._folder}: {', '.join(refused)} (first: {' '.join(first.split())}); correct the folder, or for "
            f"`instbench score`: {'; '.join(fixes)}",
            details=tuple(manifest.lines()),
        )

    @property
    def _checked(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("image folder: call for_layouts first")
        return self._manifest

    @property
    def absent(self) -> tuple[str, ...]:
        """Keys of the layouts that have no image here."""
        return self._checked.missing

    def report(self) -> dict[str, Any]:
        """What was found, for ``run.json``."""
        return {**self._checked.to_json(), **asdict(self._rules), "real_images": self._real.to_json()}

    def identity(self) -> Mapping[str, Any]:
        """Kind, what was done to the images, and one SHA-256 over the images that are used."""
        if self._manifest is None:
            hashes = {path.name: sha256_file(path) for path in self._listing if path.is_file()}
        else:
            hashes = {key: one.sha256 for key, one in sorted(self._manifest.files.items())}
        identity: dict[str, Any] = {
            "kind": "image-folder",
            "resize": RESIZE_RULE if self._rules.resize else "none",
            "sha256": {"images": sha256_bytes(canonical_json(hashes).encode())},
        }
        if self._real.found:
            identity["real_images"] = "allowed"
        return identity

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Nothing is sampled: all settings are None."""
        return SamplingSettings()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields the image of each layout.

        Raises:
            InputError: If an image is missing, or was replaced since it was checked.
        """
        for request in requests:
            key = request.layout.image_key
            file = self._checked.files.get(key)
            if file is None:
                raise InputError(f"{self._folder}: no image for {key}; add {key}.png")
            if sha256_file(file.path) != file.sha256:
                raise InputError(f"{file.path}: changed while it was read; run the command again")
            picture = open_picture(file.path)
            yield GeneratedImage(
                key,
                to_canvas(picture, request.canvas_size),
                {"file": file.path.name, "source_size": list(picture.size)},
            )
