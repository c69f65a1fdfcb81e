"""Registers the stand-ins of `tests.instbench.fakes` for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText


@pytest.fixture(autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never write to the user's cache."""
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path_factory.mktemp("home")))


@dataclass
class Fakes:
    """The stand-ins that the name "fake" stands for in this test."""

    generator: FakeGenerator = field(default_factory=FakeGenerator)
    detector: FakeDetector = field(default_factory=FakeDetector)
    image_text: FakeImageText = field(default_factory=FakeImageText)
    features: FakeFeatures = field(default_factory=FakeFeatures)


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    """Makes model, detector, image-text model and features called "fake"."""
    made = Fakes()
    GENERATORS.add(Entry("fake", "rectangles", lambda: made.generator))
    DETECTORS.add(Entry("fake", "patches", lambda: made.detector))
    IMAGE_TEXT.add(Entry("fake", "mean colour", lambda: made.image_text))
    FEATURES.add(Entry("fake", "quarters", lambda: made.features))
    yield made
    for registry in (GENERATORS, DETECTORS, IMAGE_TEXT, FEATURES):
        registry.remove("fake")
