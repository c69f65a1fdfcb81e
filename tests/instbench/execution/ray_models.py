"""Generators that Ray workers import by name: quick to load, and each with a fault of its own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from instbench.execution.ray_worker import Reply, Worker
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.layouts.types import Condition

BAD_KEY = "000012000002"
"""The third layout of shapes-box, at which some of them fail."""
GATE = "go"
LIMIT_SECONDS = 600
"""How long to wait for what must come at last, however busy the machine is."""


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


class Gated(Greys):
    """Makes one image per process; the next ones wait until a file is there."""

    waits = False

    def before(self, request: GenerationRequest) -> None:
        assert self.folder is not None
        if self.waits:
            wait_until((self.folder / GATE).exists)
        self.waits = True


class Slow(Greys):
    """Takes its time."""

    seconds = 0.2

    def before(self, request: GenerationRequest) -> None:
        time.sleep(self.seconds)


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


class CutOff(Greys):
    """Writes down what it makes; at one image it cuts what connects its process with others, and goes on."""

    def before(self, request: GenerationRequest) -> None:
        assert self.folder is not None
        key = request.layout.image_key
        (self.folder / f"{key}-{os.getpid()}-{time.monotonic_ns()}").touch()
        if key == BAD_KEY:
            self.cut(key)

    def cut(self, key: str) -> None:
        cut_connections()


class CutOffForGood(CutOff):
    """The first that makes that image is not heard of before another has made it too."""

    def cut(self, key: str) -> None:
        folder = self.folder
        assert folder is not None
        if len(list(folder.glob(f"{key}-*"))) == 1:
            cut_connections()
            wait_until(lambda: len(list(folder.glob(f"{key}-*"))) > 1)


class WorkerWithoutReplies(Worker):
    """Its answers are lost, each and every time."""

    def _do(self, number: int, work: Callable[[Reply], None]) -> Reply:
        reply = super()._do(number, work)
        cut_connections()
        return reply


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits; a time limit keeps what went wrong from going on for ever."""
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("it did not come")
        time.sleep(0.05)


def cut_connections() -> None:
    """Ends the connections that others have made to this process."""
    ours = psutil.Process().net_connections("tcp")
    served = {one.laddr.port for one in ours if one.status == psutil.CONN_LISTEN}
    for one in ours:
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port in served:
            with socket.socket(fileno=os.dup(one.fd)) as end:
                end.shutdown(socket.SHUT_RDWR)
