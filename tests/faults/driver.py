"""The command line with stand-ins for the networks, slow enough to be struck anywhere.

Every image that is made and every detection is a line in the file that ``FAULTS_LOG`` names. At line ``FAULTS_HOLD``,
if that is set, it waits until the file ``FAULTS_LOG``.go is there, so that others have all the time they need.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from instbench import defaults
from instbench.cli.main import main
from instbench.registry import DETECTORS, FEATURES, GENERATORS, IMAGE_TEXT, Entry
from instbench.runs.archives import ImageArchives
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText

PAUSE = 0.03
LIMIT_SECONDS = 600
"""How long a test waits for what must come at last, however busy the machine is."""


def note(line: str) -> None:
    log = Path(os.environ["FAULTS_LOG"])
    with log.open("a") as stream:
        stream.write(line + "\n")
    if len(log.read_text().splitlines()) == int(os.environ.get("FAULTS_HOLD", 0)):
        wait_until(log.with_name(f"{log.name}.go").exists)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("it did not come")
        time.sleep(0.005)


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


def heed_interrupts() -> None:
    """Ctrl-C ends this process, also where the tests run in the background of a shell, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    heed_interrupts()
    install()
    sys.exit(main())
