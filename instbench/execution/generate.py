"""Stage 2, generate: makes the images that are not there yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from instbench.execution.batches import Batches, BatchSize
from instbench.execution.executor import Answers
from instbench.execution.prediction import predict_disk
from instbench.generators.base import GeneratedImage, GenerationRequest, Generator
from instbench.progress import track
from instbench.runs.background import BackgroundWriter
from instbench.runs.store import RunFolder

__all__ = ["GenerationSummary", "generate_images", "pending_requests"]

logger = logging.getLogger(__name__)


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
    batch_size: int | BatchSize,
    answers: Answers | None = None,
    network: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> GenerationSummary:
    """Makes and stores the missing images, each compressed and written while the next are made.

    Args:
        folder: The run folder.
        generator: Makes the images.
        requests: All requests of the run.
        batch_size: Requests per generator call, a number or one that follows the memory; halved when memory
            runs out.
        answers: Who makes the images in place of the generator; None for this process.
        network: Entered while the generator works.

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
    warning = predict_disk(folder, len(pending), pending[0].canvas_size, there=summary.kept).warning()
    if warning:
        logger.warning("%s", warning)
    size = BatchSize(batch_size) if isinstance(batch_size, int) else batch_size
    made = (
        answers(pending, summary.kept)
        if answers
        else Batches(generator, size, summary.kept, network).run(pending)
    )
    unet_calls = 0.0
    shown = track(
        made,
        description="generate",
        total=len(pending),
        unit="images",
        note=lambda: f"{unet_calls:,.0f} UNet calls" if unet_calls else "",
    )
    last = time.monotonic()
    with BackgroundWriter() as writer:
        for request, answer in shown:
            now = time.monotonic()
            entry = {
                "image_key": request.layout.image_key,
                "seed": request.seed,
                "seconds": round(now - last, 4),
            }
            last = now
            writer.put(partial(_write, folder, entry, answer))
            if isinstance(answer, Exception):
                summary.failed.append(request.layout.image_key)
                continue
            unet_calls += float(answer.info.get("unet_calls", 0))
            summary.made += 1
    return summary


def _write(folder: RunFolder, entry: dict[str, Any], answer: GeneratedImage | Exception) -> None:
    if isinstance(answer, Exception):
        folder.log_image({**entry, "error": f"{type(answer).__name__}: {answer}"})
        return
    # The line first: an image that is there is never made again, and so could not get its line later.
    folder.log_image({**entry, "info": dict(answer.info)})
    folder.write_image(entry["image_key"], answer.image)
