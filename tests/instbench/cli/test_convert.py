"""`instbench convert`: a published file becomes a folder that `instbench run --checkpoint` scores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.generators.checkpoint import pipeline_folder
from tests.instbench.fakes import write_benchmark
from tests.reference_model.checkpoints import builders


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.save(tmp_path_factory.mktemp("published") / "a.pth", builders.instance_whole())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_convert_then_run_then_back(published, tokenizer, tmp_path, fakes, capsys):
    folder = tmp_path / "folder"
    assert main(["convert", str(published), str(folder), "--tokenizer", str(tokenizer)]) == 0
    out = capsys.readouterr().out
    assert "an InstanceDiffusion checkpoint" in out
    assert "left out, not needed for images: opt, scheduler, iters" in out
    (tmp_path / "toy").mkdir()
    toy = write_benchmark(tmp_path / "toy", canvas_size=32, metrics=[{"name": "mask_iou"}])
    arguments = ["--checkpoint", str(folder), "--limit", "1", "--num-inference-steps", "2", "--device", "cpu"]
    assert main(["run", str(toy), "-o", str(tmp_path / "run"), *arguments]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"]["mask_iou"]["n_scored"] + results["metrics"]["mask_iou"]["n_unscored"] > 0
    capsys.readouterr()
    back = tmp_path / "back.safetensors"
    assert main(["convert", str(folder), str(back), "--to-published", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["output"], facts["dtype"]) == (str(back), "float32")
    assert back.is_file()


def test_bad_input_is_one_line_and_exit_code_2(published, tokenizer, tmp_path, capsys):
    class Gadget:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    hostile = builders.save(tmp_path / "hostile.pth", {"model": Gadget()})
    lora = builders.save(tmp_path / "lora.pth", {"unet.a.lora_A.weight": torch.zeros(2)})
    cut = tmp_path / "cut.pth"
    cut.write_bytes(published.read_bytes()[:100_000])
    for source, message in (
        (hostile, "'posix.system', which has no place in a checkpoint"),
        (lora, "this is a LoRA"),
        (cut, "truncated at 100000 bytes"),
        (tmp_path / "gone.pth", "cannot be read"),
    ):
        assert main(["convert", str(source), str(tmp_path / "out"), "--tokenizer", str(tokenizer)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["convert", str(published), str(tmp_path / "out")]) == 2
    assert "--tokenizer DIR" in capsys.readouterr().err
    assert main(["convert", str(lora), str(tmp_path / "out")]) == 2
    assert "this is a LoRA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "marker").exists()


def test_a_file_given_as_checkpoint_points_to_convert(published):
    with pytest.raises(InputError, match="instbench convert"):
        pipeline_folder(published)


def test_the_function_raises_input_errors(published, tmp_path):
    with pytest.raises(InputError, match="format: 'x' is unknown"):
        api.convert(published, tmp_path / "o", tokenizer=builders.save_tokenizer(tmp_path / "t"), format="x")


def test_the_converted_folder_is_scored_by_the_shipped_networks(published, tokenizer, tmp_path):
    assert main(["convert", str(published), str(tmp_path / "folder"), "--tokenizer", str(tokenizer)]) == 0
    arguments = ["--limit", "2", "--num-inference-steps", "1", "--device", "cpu", "-o", str(tmp_path / "run")]
    assert main(["run", "shapes-box", "--checkpoint", str(tmp_path / "folder"), *arguments]) == 0
    metrics = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    assert metrics["box_ap50"]["n_scored"] > 0
    assert 0 <= metrics["box_ap50"]["value"] <= 1
    assert metrics["fid"]["value"] > 0
