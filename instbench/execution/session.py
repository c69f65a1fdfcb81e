"""What several runs of one process share: loaded networks and the features of real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench import defaults
from instbench.benchmarks.schema import Benchmark
from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.evaluators.base import Detector, FeatureExtractor, ImageTextModel
from instbench.evaluators.categories import named_for
from instbench.execution.batches import BatchSize, automatic_batch
from instbench.generators.base import Generator
from instbench.layouts.types import Layout
from instbench.registry import load_evaluator, load_generator

__all__ = ["Evaluators", "Session"]


@dataclass(frozen=True, slots=True)
class Evaluators:
    """The loaded evaluators of a benchmark, None where it names none.

    Attributes:
        detector: Detector or segmenter.
        image_text: Image-text model.
        features: Feature extractor.
    """

    detector: Detector | None = None
    image_text: ImageTextModel | None = None
    features: FeatureExtractor | None = None

    def identity(self) -> dict[str, dict[str, Any]]:
        """What each evaluator says about itself, by role."""
        named = {"detector": self.detector, "image_text": self.image_text, "features": self.features}
        return {role: dict(one.identity()) for role, one in named.items() if one is not None}


@dataclass
class Session:
    """Loads each network once per process.

    Attributes:
        device: Torch device, or "auto".
        dtype: Floating type of the generator, or "auto".
        batch_size: Images per generator call, or "auto".
        reference_features: Features of real images by (layouts, canvas, extractor).
    """

    device: str = defaults.DEVICE
    dtype: str = defaults.DTYPE
    batch_size: int | str = defaults.BATCH_SIZE
    reference_features: dict[tuple[str, ...], NDArray[np.float32]] = field(default_factory=dict)
    _generators: dict[tuple[str, str], Any] = field(default_factory=dict)
    _evaluators: dict[tuple[str, str], Any] = field(default_factory=dict)

    def images_per_call(self) -> int:
        """Returns the batch size as a number.

        Raises:
            InputError: If it is neither "auto" nor a positive number.
        """
        if self.batch_size == "auto":
            return defaults.AUTO_BATCH_SIZE
        if isinstance(self.batch_size, int) and self.batch_size >= 1:
            return self.batch_size
        raise InputError(f"--batch-size {self.batch_size}: give auto or a number of 1 or more")

    def batch_size_for(self, canvas_size: int) -> BatchSize:
        """Returns what decides on images per generator call; each run needs its own.

        Args:
            canvas_size: Side of the images in pixels.

        Raises:
            InputError: If the batch size is neither "auto" nor a positive number, or there is no such device.
        """
        if self.batch_size == "auto":
            return automatic_batch(canvas_size, str(resolve_device(self.device, mps=True)))
        return BatchSize(self.images_per_call())

    def generator(self, name: str, checkpoint: Path | None = None) -> Generator:
        """Returns a generator, loaded on first use."""
        key = (name, str(checkpoint))
        if key not in self._generators:
            self._generators[key] = load_generator(
                name,
                checkpoint=checkpoint,
                device=self.device,
                dtype=self.dtype,
                batch_size=None if self.batch_size == "auto" else self.images_per_call(),
            )
        generator: Generator = self._generators[key]
        return generator

    def evaluator(self, role: str, name: str) -> Any:
        """Returns an evaluator, loaded on first use."""
        key = (role, name)
        if key not in self._evaluators:
            self._evaluators[key] = load_evaluator(role, name, device=self.device)
        return self._evaluators[key]

    def evaluators(self, benchmark: Benchmark, layouts: Sequence[Layout] = ()) -> Evaluators:
        """Returns the evaluators that a benchmark names.

        Args:
            benchmark: The benchmark.
            layouts: Its layouts; the detector then answers in their category names, see `named_for`.

        Raises:
            InputError: If the detector knows none of the categories, or names are ambiguous.
        """
        names = benchmark.evaluators.model_dump(exclude_none=True)
        loaded = {role: self.evaluator(role, name) for role, name in names.items()}
        if "detector" in loaded:
            asked = sorted({one.category for layout in layouts for one in layout.instances})
            loaded["detector"] = named_for(loaded["detector"], asked)
        return Evaluators(**loaded)
