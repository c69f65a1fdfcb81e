"""The command line with stand-ins for the networks, slow enough to be struck anywhere.

Every image that is made and every detection is a line in the file that ``FAULTS_LOG`` names.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from instbench import defaults
from instbench.cli.main import main
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from instbench.runs.archives import ImageArchives
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText

PAUSE = 0.03


def note(line: str) -> None:
    with Path(os.environ["FAULTS_LOG"]).open("a") as stream:
        stream.write(line + "\n")


class SlowGenerator(FakeGenerator):
    pause = PAUSE

    def draw(self, request):
        image = super().draw(request)
        note(request.layout.image_key)
        time.sleep(self.pause)
        return image


class SlowDetector(FakeDetector):
    pause = PAUSE

    def detect(self, images):
        note("detect")
        time.sleep(self.pause)
        return super().detect(images)


def install() -> None:
    """Puts the stand-ins in the place of the networks."""
    defaults.OBSERVE_CHUNK = 3
    ImageArchives.shard_images = 5
    GENERATORS.add(Entry("fake", "rectangles", SlowGenerator))
    DETECTORS.add(Entry("fake", "patches", SlowDetector))
    IMAGE_TEXT.add(Entry("fake", "mean colour", FakeImageText))
    FEATURES.add(Entry("fake", "quarters", FakeFeatures))


if __name__ == "__main__":
    install()
    sys.exit(main())
