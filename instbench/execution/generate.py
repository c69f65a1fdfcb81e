"""Stage 2, generate: makes the images that are not there yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instbench.errors import InputError
from instbench.execution.executor import Answers
from instbench.generators.base import GeneratedImage, GenerationRequest, Generator
from instbench.progress import track
from instbench.runs.store import RunFolder

__all__ = ["GenerationSummary", "generate_images", "pending_requests"]

logger = logging.getLogger(__name__)

_GIVE_UP_AFTER = 3


@dataclass(slots=True)
class GenerationSummary:
    """What the stage did.

    Attributes:
        made: Images made by this call.
        kept: Images that were there.
        failed: Image keys that could not be made.
    """

    made: int
    kept: int
    failed: list[str]


def pending_requests(folder: RunFolder, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """Returns the requests whose image is missing, torn or of another size."""
    return [
        request for request in requests if not folder.has_image(request.layout.image_key, request.canvas_size)
    ]


def generate_images(
    folder: RunFolder,
    generator: Generator,
    requests: Sequence[GenerationRequest],
    batch_size: int,
    answers: Answers | None = None,
) -> GenerationSummary:
    """Makes and stores the missing images, each written as soon as it is done.

    Args:
        folder: The run folder.
        generator: Makes the images.
        requests: All requests of the run.
        batch_size: Requests per generator call; halved when memory runs out.
        answers: Who makes the images in place of the generator; None for this process.

    Returns:
        Counts and the keys that failed.

    Raises:
        InputError: If the generator answers with a wrong key or size.
        OSError: If the disk is full or the folder cannot be written.
        Exception: What the generator raises, if it has made no image of this run and fails on the first
            three.
    """
    pending = pending_requests(folder, requests)
    summary = GenerationSummary(made=0, kept=len(requests) - len(pending), failed=[])
    if not pending:
        return summary
    made = (
        answers(pending, summary.kept)
        if answers
        else _Batches(generator, batch_size, summary.kept).run(pending)
    )
    last = time.monotonic()
    for request, answer in track(made, description="generate", total=len(pending)):
        now = time.monotonic()
        entry = {"image_key": request.layout.image_key, "seed": request.seed, "seconds": round(now - last, 4)}
        last = now
        if isinstance(answer, Exception):
            summary.failed.append(request.layout.image_key)
            folder.log_image({**entry, "error": f"{type(answer).__name__}: {answer}"})
            continue
        # The line first: an image that is there is never made again, and so could not get its line later.
        folder.log_image({**entry, "info": dict(answer.info)})
        folder.write_image(request.layout.image_key, answer.image)
        summary.made += 1
    return summary


class _Batches:
    """Feeds a generator in batches; out of memory halves them, a bad image is tried alone once."""

    def __init__(self, generator: Generator, batch_size: int, succeeded: int = 0) -> None:
        self.generator = generator
        self.batch_size = batch_size
        self._succeeded = succeeded
        self._failed = 0

    def run(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, GeneratedImage | Exception]]:
        position = 0
        while position < len(requests):
            batch = list(requests[position : position + self.batch_size])
            open_requests = {request.layout.image_key: request for request in batch}
            try:
                for answer in self._answers(batch, open_requests):
                    self._succeeded += 1
                    yield open_requests.pop(answer.image_key), answer
            except InputError:
                raise
            except Exception as error:
                left = list(open_requests.values())
                if self.batch_size > 1 and (_out_of_memory(error) or len(batch) > 1):
                    yield from self._retry(left, error)
                elif left:
                    yield self._failure(left[0], error)
                else:
                    logger.warning("the model failed after its last image: %s", error)
            position += len(batch)

    def _answers(
        self, batch: list[GenerationRequest], open_requests: dict[str, GenerationRequest]
    ) -> Iterator[GeneratedImage]:
        for answer in self.generator.generate(batch):
            request = open_requests.get(answer.image_key)
            if request is None:
                raise InputError(
                    f"the model answered image key {answer.image_key!r}, which was not asked (or twice)"
                )
            size = request.canvas_size
            if answer.image.size != (size, size):
                raise InputError(
                    f"image {answer.image_key}: {answer.image.size} instead of {(size, size)} pixels"
                )
            yield answer
        if open_requests:
            raise RuntimeError(f"the model gave no image for {', '.join(sorted(open_requests))}")

    def _retry(
        self, requests: list[GenerationRequest], error: Exception
    ) -> Iterator[tuple[GenerationRequest, GeneratedImage | Exception]]:
        if _out_of_memory(error):
            self.batch_size = max(1, self.batch_size // 2)
            logger.warning("out of memory; going on with batches of %d", self.batch_size)
            yield from self.run(requests)
            return
        logger.warning("a batch failed (%s); its %d images are tried alone", error, len(requests))
        alone = _Batches(self.generator, 1, self._succeeded)
        alone._failed = self._failed
        yield from alone.run(requests)
        self._succeeded, self._failed = alone._succeeded, alone._failed

    def _failure(
        self, request: GenerationRequest, error: Exception
    ) -> tuple[GenerationRequest, GeneratedImage | Exception]:
        self._failed += 1
        if isinstance(error, OSError) or (self._succeeded == 0 and self._failed >= _GIVE_UP_AFTER):
            raise error  # a fault of the model or the disk, not of one layout
        logger.error("image %s failed: %s: %s", request.layout.image_key, type(error).__name__, error)
        return request, error


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
