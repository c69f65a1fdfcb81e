from __future__ import annotations

import time

import pytest

from instbench import api
from instbench.execution.session import Session
from instbench.execution.timing import sum_up
from instbench.generators.base import GeneratedImage
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder
from tests.instbench.fakes import FakeDetector, FakeGenerator, write_benchmark


class Timed(FakeGenerator):
    """Takes its time, and counts calls of a UNet."""

    def generate(self, requests):
        for made in super().generate(requests):
            time.sleep(0.02)
            yield GeneratedImage(made.image_key, made.image, {"unet_calls": 7.333333, "unet_rows": 20})


class TimedDetector(FakeDetector):
    def detect(self, images):
        time.sleep(0.05)
        return super().detect(images)


def test_totals_count_every_image_once_over_all_calls(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path))
    fakes.detector = TimedDetector()
    fakes.generator = Timed(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        api.run(toy, tmp_path / "run", model="fake", session=Session(batch_size=2))
    first = RunFolder(tmp_path / "run").read_run()
    assert 0.06 <= first.seconds_in_networks["generate"] <= first.timings["generate"]
    fakes.generator = Timed()
    api.run(toy, tmp_path / "run", model="fake")
    record = RunFolder(tmp_path / "run").read_run()
    totals = record.totals
    assert totals is not None
    assert (totals.images, totals.unet_calls, totals.unet_rows) == (5, 37, 100)
    assert totals.seconds_per_image == pytest.approx(totals.seconds_generating / 5, abs=1e-3)
    assert totals.images_per_hour == pytest.approx(3600 / totals.seconds_per_image, rel=0.01)
    for stage, least in (("generate", 0.1), ("observe", 0.05)):
        assert least <= record.seconds_in_networks[stage] <= record.timings[stage]
    outside = 1 - sum(record.seconds_in_networks.values()) / sum(record.timings.values())
    assert totals.share_outside_networks == pytest.approx(outside, abs=1e-3)
    # A finished run makes and counts nothing again.
    api.run(toy, tmp_path / "run", model="fake")
    again = RunFolder(tmp_path / "run").read_run().totals
    assert again is not None
    assert (again.images, again.unet_calls, again.seconds_generating) == (5, 37, totals.seconds_generating)


def test_generators_that_count_no_calls_have_none(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path))
    api.generate(toy, tmp_path / "run", model="fake")
    run = RunFolder(tmp_path / "run")
    totals = run.read_run().totals
    assert totals is not None
    assert (totals.images, totals.unet_calls) == (5, None)
    run.log_image({"image_key": "a stranger", "seconds": 100.0})
    run.log_image({"image_key": "failed", "seconds": 1.0, "error": "no"})
    record = RunRecord(identity={}, identity_sha256="", model="m", benchmark={})
    assert sum_up(run, record, {"failed"}).images == 0
    assert sum_up(run, record, set()).images_per_hour is None
