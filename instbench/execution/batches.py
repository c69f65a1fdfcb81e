"""Feeds a generator in batches whose size follows the memory; no request is lost or answered twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from instbench import defaults
from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, Generator
from instbench.runs.memory import device_memory, free_memory
from reference_model.memory import is_out_of_memory, release_memory

__all__ = ["GIVE_UP_AFTER", "AutoBatch", "BatchSize", "Batches", "automatic_batch"]

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 3
"""Images that may fail before the first is made; then the model is at fault, not a layout."""
_SHARE_OF_MEMORY = 0.8


class BatchSize:
    """Images per call of a generator; halved when memory runs out, and never raised after that.

    Args:
        images: How many to begin with.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.halved = False

    def halve(self, failed: int) -> bool:
        """Goes on with half of a call that ran out of memory.

        Args:
            failed: Images of that call.

        Returns:
            False if a single image did not fit.
        """
        if failed <= 1:
            return False
        self.images, self.halved = failed // 2, True
        return True

    def worked(self, images: int) -> None:
        """A call of so many images went well."""


class AutoBatch(BatchSize):
    """Doubles on a GPU as long as the next size should fit.

    What an image takes is the peak of the calls so far over their images, the UNet batch included: more than one
    image more will take, so the guess errs on the safe side.

    Args:
        images: How many to begin with.
        most: The largest size.
    """

    def __init__(self, images: int, most: int) -> None:
        super().__init__(images)
        self.most = most

    def worked(self, images: int) -> None:
        """Raises the size if a full call left room enough on every GPU in use."""
        following = min(2 * self.images, self.most)
        if self.halved or images < self.images or following == self.images:
            return
        used = device_memory()
        if used and all(
            one.allocated + (one.peak - one.allocated) / images * following <= _SHARE_OF_MEMORY * one.usable
            for one in used
        ):
            self.images = following
            logger.debug("batches of %d from here on", following)


def automatic_batch(canvas_size: int, device: str) -> BatchSize:
    """The size for ``--batch-size auto``.

    Args:
        canvas_size: Side of the images in pixels.
        device: Where the generator runs.

    Returns:
        On a GPU one that begins with 1 and grows; on the CPU, where larger batches gain little, a fixed one
        that should fit into half of the free memory.
    """
    if device.startswith("cuda"):
        return AutoBatch(1, defaults.MOST_BATCH_SIZE)
    if canvas_size > defaults.SMALL_CANVAS:
        return BatchSize(1)
    fits = free_memory() // 2 // defaults.BYTES_PER_IMAGE
    return BatchSize(max(1, min(defaults.AUTO_BATCH_SIZE, fits)))


class Batches:
    """Feeds a generator in batches.

    Out of memory halves the batch, and a single image that ran out of memory is tried once more; the images of
    a batch that failed otherwise are tried alone.

    Args:
        generator: Makes the images.
        size: Images per call; it is changed here.
        succeeded: Images of this run that were made before.
        network: Entered while the generator works.
    """

    def __init__(
        self,
        generator: Generator,
        size: BatchSize,
        succeeded: int = 0,
        network: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.generator = generator
        self.size = size
        self._succeeded = succeeded
        self._network = network
        self._failed = 0

    def run(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, GeneratedImage | Exception]]:
        """Yields each request once, with its image or with what went wrong.

        Raises:
            InputError: If the generator answers with a wrong key or size, or refuses a layout or setting.
            Exception: What the generator raises, if it has made no image and fails on the first three.
        """
        waiting, alone = deque(requests), set[str]()
        while waiting:
            batch = self._take(waiting, alone)
            left = {request.layout.image_key: request for request in batch}
            failure: Exception | None = None
            try:
                for answer in self._answers(batch, left):
                    self._succeeded += 1
                    yield left.pop(answer.image_key), answer
            except InputError:
                raise
            except Exception as error:
                failure = error
            if failure is None:
                self.size.worked(len(batch))
                continue
            exhausted = is_out_of_memory(failure)
            if exhausted:
                # The frames of the call that failed hold its tensors.
                failure = failure.with_traceback(None)
                failure.__context__ = failure.__cause__ = None
                release_memory()
            if not left:
                logger.warning("the model failed after its last image: %s", failure)
            elif exhausted and self.size.halve(len(batch)):
                logger.warning("out of memory; going on with batches of %d", self.size.images)
                waiting.extendleft(reversed(left.values()))
            elif len(batch) > 1 or (exhausted and not alone.issuperset(left)):
                if exhausted:
                    logger.warning("out of memory with a single image; trying it once more")
                else:
                    logger.warning("a batch failed (%s); its %d images are tried alone", failure, len(left))
                alone |= set(left)
                waiting.extendleft(reversed(left.values()))
            else:
                yield self._failure(batch[0], failure)

    def _take(self, waiting: deque[GenerationRequest], alone: set[str]) -> list[GenerationRequest]:
        batch = [waiting.popleft()]
        if batch[0].layout.image_key in alone:
            return batch
        while waiting and len(batch) < self.size.images and waiting[0].layout.image_key not in alone:
            batch.append(waiting.popleft())
        return batch

    def _answers(
        self, batch: list[GenerationRequest], left: dict[str, GenerationRequest]
    ) -> Iterator[GeneratedImage]:
        answers: Iterator[GeneratedImage] | None = None
        while True:
            with self._network():
                answers = iter(self.generator.generate(batch)) if answers is None else answers
                answer = next(answers, None)
            if answer is None:
                break
            request = left.get(answer.image_key)
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
        if left:
            raise RuntimeError(f"the model gave no image for {', '.join(sorted(left))}")

    def _failure(
        self, request: GenerationRequest, error: Exception
    ) -> tuple[GenerationRequest, GeneratedImage | Exception]:
        self._failed += 1
        if isinstance(error, OSError) or (self._succeeded == 0 and self._failed >= GIVE_UP_AFTER):
            raise error  # a fault of the model or the disk, not of one layout
        logger.error("image %s failed: %s: %s", request.layout.image_key, type(error).__name__, error)
        return request, error
