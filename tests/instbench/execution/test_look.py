from __future__ import annotations

import threading

import pytest

from instbench.benchmarks import load_benchmark
from instbench.execution.generate import generate_images
from instbench.execution.layouts import make_layouts
from instbench.execution.look import Looker, Picture
from instbench.execution.observe import observe_images
from instbench.execution.plan import make_requests
from instbench.execution.session import Evaluators
from instbench.generators.base import SamplingSettings
from instbench.runs.images import UNREADABLE
from instbench.runs.store import RunFolder
from instbench.runs.tables import ObservationTable
from tests.instbench.fakes import FakeDetector, FakeGenerator, write_benchmark


class Scene:
    """Three chunks of two pictures, read when asked for."""

    def __init__(self, folder) -> None:
        self.benchmark = load_benchmark(str(write_benchmark(folder)))
        self.layouts = make_layouts(self.benchmark)
        self.run = run = RunFolder(folder / "run")
        run.prepare()
        generate_images(
            run,
            FakeGenerator(),
            make_requests(self.benchmark, self.layouts, seed=3, sampling=SamplingSettings()),
            2,
        )
        wanted = frozenset(["detections"])
        self.pictures = [
            Picture(one, run.pictures.read(one.image_key), run.pictures.sha256(one.image_key), wanted)
            for one in self.layouts
        ]
        self.read = [threading.Event() for _ in self.pictures]

    def looker(self, detector: FakeDetector) -> Looker:
        return Looker(self.benchmark, self.layouts, Evaluators(detector=detector))

    def chunks(self):
        for index in range(0, len(self.pictures), 2):
            self.read[index // 2].set()
            yield self.pictures[index : index + 2]


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene(tmp_path)


def test_the_next_chunk_is_read_while_the_evaluators_look(scene):
    class Waits(FakeDetector):
        def detect(self, images):
            index = self.seen // 2
            if index < 2:
                assert scene.read[index + 1].wait(30)
            return super().detect(images)

    looker = scene.looker(Waits())
    seen = [row for rows in looker.look_at_all(scene.chunks()) for row in rows["detections"]]
    assert seen == scene.looker(FakeDetector()).look(scene.pictures)["detections"]
    assert [row["image_key"] for row in seen] == [one.image_key for one in scene.layouts]


def test_no_more_than_one_chunk_is_read_ahead(scene):
    rows = scene.looker(FakeDetector()).look_at_all(scene.chunks())
    next(rows)
    assert scene.read[1].wait(30)
    assert not scene.read[2].wait(0.2)
    rows.close()
    assert readers() == []


def readers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("reader")]


def test_nobody_reads_ahead_after_an_error_of_the_disk(scene, monkeypatch):
    def full(table):
        assert readers()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ObservationTable, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        observe_images(scene.run, scene.benchmark, scene.layouts, Evaluators(FakeDetector()), chunk=1)
    assert readers() == []


def test_a_damaged_picture_ahead_costs_no_observation_before_it(scene):
    scene.pictures[3] = Picture(scene.layouts[3], b"\x89PNG half", "", frozenset(["detections"]))
    rows = scene.looker(FakeDetector()).look_at_all(scene.chunks())
    assert len(next(rows)["detections"]) == 2
    with pytest.raises(UNREADABLE):
        next(rows)
