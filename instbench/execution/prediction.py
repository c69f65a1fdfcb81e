"""What a run will need: UNet calls, disk space and time, from what is known before it starts."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instbench import defaults
from instbench.errors import InputError
from instbench.execution.batches import AutoBatch
from instbench.execution.session import Session
from instbench.generators.base import GenerationRequest, Generator
from instbench.generators.prediction import UnetWork
from instbench.runs.store import RunFolder

__all__ = ["Disk", "predict_disk", "predict_unet", "seconds_per_image", "size_in_words"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disk:
    """Disk space for the rest of a run.

    Attributes:
        needed: Bytes that will be written, about.
        free: Bytes that are free where the run folder is or will be.
        measured: Whether `needed` follows from images of this run; else it is an assumption.
    """

    needed: int
    free: int
    measured: bool

    def warning(self) -> str | None:
        """One line if the disk is likely to run full."""
        if self.needed <= self.free:
            return None
        return (
            f"the disk may run full: about {size_in_words(self.needed)} needed, {size_in_words(self.free)} free; "
            "make room or choose another -o (a run that stops goes on with the same command)"
        )


def predict_disk(folder: RunFolder, images: int, canvas_size: int, *, there: int) -> Disk:
    """Disk space for images that are not there yet, and for what is observed of them.

    Args:
        folder: The run folder; it need not exist.
        images: How many images are left to make.
        canvas_size: Their side in pixels.
        there: How many images the folder holds.

    Returns:
        The prediction: as much per image as those of the folder take, or an assumption where there are none.
    """
    each = folder.pictures.size_in_bytes() / there if there else defaults.BYTES_PER_PIXEL * canvas_size**2
    place = _existing(folder.root)
    needed = round(images * (each + defaults.BYTES_PER_OBSERVATION))
    return Disk(needed, shutil.disk_usage(place).free, there > 0)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.absolute().parent
    return path


def predict_unet(
    generator: Generator, requests: Sequence[GenerationRequest], session: Session | None = None
) -> UnetWork | None:
    """UNet calls for requests, None for generators that cannot say.

    Args:
        generator: The generator.
        requests: What it will be asked, all of one canvas.
        session: Decides on the size of batches; None takes that of the defaults.
    """
    predict = getattr(generator, "predict", None)
    if predict is None or not requests:
        return None
    size = (session or Session()).batch_size_for(requests[0].canvas_size)
    images = size.most if isinstance(size, AutoBatch) else size.images
    try:
        work: UnetWork = predict(requests, images)
    except InputError as error:
        logger.warning("%s", error)
        return None
    return work


def seconds_per_image(folder: RunFolder, keys: set[str]) -> float | None:
    """Mean seconds of the images of a run that were made so far; None without any."""
    log = folder.read_image_log()
    seconds = [entry.get("seconds") for key, entry in log.items() if key in keys and "error" not in entry]
    known = [one for one in seconds if isinstance(one, int | float)]
    return sum(known) / len(known) if known else None


def size_in_words(count: float) -> str:
    """Bytes in words: "3.1 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
