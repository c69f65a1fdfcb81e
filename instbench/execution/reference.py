"""The real images behind FID: which they are, and their features."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench import defaults
from instbench.benchmarks.schema import Benchmark
from instbench.errors import InputError
from instbench.evaluators.base import FeatureExtractor
from instbench.execution.plan import make_requests
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.layouts.types import Layout
from instbench.runs.atomic import canonical_json, sha256_bytes

__all__ = ["ReferenceImages"]

logger = logging.getLogger(__name__)


class ReferenceImages:
    """The real images of a run's own layouts, through the same canvas.

    Args:
        layouts: All layouts of the run, those whose generated image is missing included.
        benchmark: The benchmark.
        session: Keeps the features for the life of the process.
    """

    def __init__(self, layouts: tuple[Layout, ...], benchmark: Benchmark, session: Session) -> None:
        self.layouts = layouts
        self.benchmark = benchmark
        self.session = session
        self._source = session.generator("real-images")

    def facts(self, extractor: FeatureExtractor) -> dict[str, Any]:
        """What the distance depends on: which images, resized how, seen by which network."""
        ids = [[layout.dataset, layout.image_id] for layout in self.layouts]
        return {
            "images": "the real images of the run's layouts",
            "count": len(ids),
            "ids_sha256": sha256_bytes(canonical_json(ids).encode()),
            "canvas_size": self.benchmark.canvas_size,
            "source": dict(self._source.identity()),
            "extractor_sha256": sha256_bytes(canonical_json(dict(extractor.identity())).encode()),
        }

    def features(self, extractor: FeatureExtractor) -> NDArray[np.float32] | None:
        """Returns the features [images, features], or None if the real images are not at hand."""
        facts = self.facts(extractor)
        paths = [layout.source_path for layout in self.layouts]
        key = (sha256_bytes(canonical_json([facts, paths]).encode()),)
        if key not in self.session.reference_features:
            try:
                self.session.reference_features[key] = self._extract(extractor)
            except InputError as error:
                logger.warning("no reference for FID: %s", error)
                return None
        return self.session.reference_features[key]

    def _extract(self, extractor: FeatureExtractor) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(self.layouts), defaults.OBSERVE_CHUNK):
            chunk = self.layouts[start : start + defaults.OBSERVE_CHUNK]
            requests = make_requests(self.benchmark, chunk, seed=0, sampling=SamplingSettings())
            images = {one.image_key: one.image for one in self._source.generate(requests)}
            parts.append(extractor.features([images[layout.image_key] for layout in chunk]))
        return np.concatenate(parts)
