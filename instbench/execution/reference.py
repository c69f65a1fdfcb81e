"""The real images behind FID: which they are, and their features.

Features of photographs are kept in the data home, in one file per reference. A file is named after what it is made
of and says so inside as well; one that says something else is refused.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instbench import defaults
from instbench.benchmarks.schema import Benchmark
from instbench.datasets.home import data_home
from instbench.errors import InputError
from instbench.evaluators.base import FeatureExtractor
from instbench.execution.plan import make_requests
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.layouts.types import Layout
from instbench.runs.atomic import canonical_json, sha256_bytes, sha256_file
from metrics import check_reference, load_reference, make_reference, save_reference

__all__ = ["ReferenceImages"]

logger = logging.getLogger(__name__)


_FEWEST = 2  # images of which statistics can be made


class _NoImagesError(Exception):
    """The real images are not at hand."""


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
        facts = {
            "images": "the real images of the run's layouts",
            "count": len(ids),
            "ids_sha256": sha256_bytes(canonical_json(ids).encode()),
            "canvas_size": self.benchmark.canvas_size,
            "source": dict(self._source.identity()),
            "extractor_sha256": sha256_bytes(canonical_json(dict(extractor.identity())).encode()),
        }
        if self._photographs is not None:
            facts["files_sha256"] = self._photographs
        return facts

    @cached_property
    def _photographs(self) -> str | None:
        """One hash over the files of the real images; None where they are rendered or not all there."""
        paths = [layout.source_path for layout in self.layouts]
        if not all(path is not None and Path(path).is_file() for path in paths):
            return None
        hashes = [sha256_file(Path(path)) for path in paths if path is not None]
        return sha256_bytes(canonical_json(hashes).encode())

    def features(self, extractor: FeatureExtractor) -> NDArray[np.float32] | None:
        """Returns the features [images, features], or None if the real images are not at hand.

        Raises:
            InputError: If a stored reference is damaged or says that it is another one.
        """
        facts = self.facts(extractor)
        paths = [layout.source_path for layout in self.layouts]
        key = (sha256_bytes(canonical_json([facts, paths]).encode()),)
        if key not in self.session.reference_features:
            try:
                self.session.reference_features[key] = self._stored(extractor, facts)
            except _NoImagesError as error:
                logger.warning("no reference for FID: %s", error)
                return None
        return self.session.reference_features[key]

    def _stored(self, extractor: FeatureExtractor, facts: dict[str, Any]) -> NDArray[np.float32]:
        """Features from the data home if they are there, else made and, of photographs, kept there."""
        if self._photographs is None or len(self.layouts) < _FEWEST:
            return self._extract(extractor)
        name = sha256_bytes(canonical_json(facts).encode())
        path = data_home() / "references" / f"{name}.safetensors"
        if path.is_file():
            try:
                stored = load_reference(path)
                check_reference(facts, stored.facts, str(path))
            except ValueError as error:
                raise InputError(f"{error} (delete the file)") from None
            if stored.features is not None:
                return stored.features
        features = self._extract(extractor)
        try:
            save_reference(make_reference(features, facts), path)
        except OSError as error:  # the number does not depend on the store
            logger.warning("%s: the reference could not be kept (%s)", path, error.strerror or error)
        return features

    def _extract(self, extractor: FeatureExtractor) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(self.layouts), defaults.OBSERVE_CHUNK):
            chunk = self.layouts[start : start + defaults.OBSERVE_CHUNK]
            requests = make_requests(self.benchmark, chunk, seed=0, sampling=SamplingSettings())
            try:
                images = {one.image_key: one.image for one in self._source.generate(requests)}
            except InputError as error:
                raise _NoImagesError(str(error)) from None
            parts.append(extractor.features([images[layout.image_key] for layout in chunk]))
        return np.concatenate(parts)
