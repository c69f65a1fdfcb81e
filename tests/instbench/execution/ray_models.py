"""Generators that Ray workers import by name: quick to load, and each with a fault of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.layouts.types import Condition

BAD_KEY = "000012000002"
"""The third layout of shapes-box, at which some of them fail."""


class Greys:
    """A grey that depends on the seed."""

    conditions = frozenset(Condition)

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.folder = checkpoint

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        for request in requests:
            self.before(request)
            side = request.canvas_size
            image = Image.new("RGB", (side, side), (request.seed % 256,) * 3)
            yield GeneratedImage(request.layout.image_key, image, {"pid": os.getpid()})

    def before(self, request: GenerationRequest) -> None:
        pass

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "greys"}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        return settings


class Slow(Greys):
    """Takes its time."""

    def before(self, request: GenerationRequest) -> None:
        time.sleep(0.3)


class Refusing(Greys):
    """Fails at one image."""

    def before(self, request: GenerationRequest) -> None:
        if request.layout.image_key == BAD_KEY:
            raise ArithmeticError("not this one")


class Deadly(Greys):
    """Kills its process at one image."""

    def before(self, request: GenerationRequest) -> None:
        if request.layout.image_key == BAD_KEY:
            os._exit(1)


class Fickle(Greys):
    """Fails once per image where a file is missing, then makes the file: another try goes well."""

    def before(self, request: GenerationRequest) -> None:
        assert self.folder is not None
        mark = self.folder / request.layout.image_key
        if not mark.exists():
            mark.touch()
            raise ArithmeticError("once")


class Hopeless(Greys):
    """Fails always."""

    def before(self, request: GenerationRequest) -> None:
        raise ArithmeticError("never")


class Different(Greys):
    """Is another model in every process."""

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "different", "weights": os.getpid()}
