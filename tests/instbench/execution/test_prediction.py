from __future__ import annotations

import json
from collections import namedtuple

import pytest

from instbench import api
from instbench.cli.main import main
from instbench.execution import prediction
from instbench.execution.prediction import predict_disk, predict_unet, size_in_words
from instbench.execution.session import Session
from instbench.generators.gligen import GligenGenerator
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.generators.prediction import latent_side
from instbench.generators.text_only import TextOnlyGenerator
from instbench.runs.store import RunFolder
from tests.instbench.fakes import FakeGenerator, write_benchmark
from tests.instbench.generators.test_instance_diffusion import some_requests
from tests.reference_model.tiny import tiny_pipeline

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline().save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", [InstanceDiffusionGenerator, TextOnlyGenerator])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_predicted_calls_are_those_of_a_run(folder, kind, images):
    generator = kind(folder, device="cpu", max_unet_batch=5)
    requests = some_requests(mis=0.5, num_inference_steps=6)
    work = predict_unet(generator, requests, Session(batch_size=images))
    assert work is not None
    assert "pipeline" not in vars(generator)  # no weights were loaded
    made = [
        one.info
        for start in range(0, len(requests), images)
        for one in generator.generate(requests[start : start + images])
    ]
    assert work.calls == round(sum(info["unet_calls"] for info in made))
    assert work.rows == round(sum(info["unet_rows"] for info in made))


def test_the_latents_of_the_shipped_weights_are_known_from_their_files():
    for kind in (InstanceDiffusionGenerator, GligenGenerator):
        generator = kind(device="cpu")
        assert latent_side(generator.folder, 128) == 128 // generator.pipeline.vae_scale_factor


def test_generators_that_cannot_say_are_left_out():
    assert predict_unet(FakeGenerator(), some_requests()) is None
    assert predict_unet(InstanceDiffusionGenerator(), []) is None


def test_disk_space_is_that_of_the_images_in_the_folder(tmp_path, fakes):
    toy = str(write_benchmark(tmp_path))
    assumed = predict_disk(RunFolder(tmp_path / "new" / "run"), 100, 512, there=0)
    assert not assumed.measured
    assert assumed.needed == 100 * (2 * 512 * 512 + 20_000)
    assert assumed.free > 0
    api.generate(toy, tmp_path / "run", model="fake")
    known = predict_disk(RunFolder(tmp_path / "run"), 100, 512, there=5)
    assert known.measured
    assert 100 * 20_000 < known.needed < assumed.needed


def test_a_disk_that_is_too_small_is_a_warning(tmp_path, fakes, monkeypatch, capsys):
    toy = str(write_benchmark(tmp_path))
    monkeypatch.setattr(prediction.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 5000))
    command = [toy, "--model", "fake", "-o", str(tmp_path / "run")]
    assert main(["run", *command, "--dry-run", "--json"]) == 0
    [facts] = json.loads(capsys.readouterr().out)
    assert facts["warning"].startswith("the disk may run full: about 123.0 kB needed, 5.0 kB free; make room")
    assert facts["disk_needed"] == "123.0 kB (assumed: 2 bytes per pixel), 5.0 kB free"
    assert main(["generate", *command]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("the disk may run full")
    assert "5 images made" in shown.out


def test_a_dry_run_knows_the_time_from_images_that_are_there(tmp_path, fakes, capsys):
    toy = str(write_benchmark(tmp_path))
    command = ["run", toy, "--model", "fake", "-o", str(tmp_path / "run"), "--dry-run"]
    main(command)
    assert "time_left" not in capsys.readouterr().out
    api.generate(toy, tmp_path / "run", model="fake")
    next((tmp_path / "run" / "images").iterdir()).unlink()
    main(command)
    assert "time_left: 0 s (" in capsys.readouterr().out


def test_sizes_in_words():
    assert [size_in_words(one) for one in (12, 1234, 2.5e6, 7e9, 3e12)] == [
        "12 bytes",
        "1.2 kB",
        "2.5 MB",
        "7.0 GB",
        "3.0 TB",
    ]
