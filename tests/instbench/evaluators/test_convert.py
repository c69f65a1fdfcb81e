from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.evaluators import load_detector
from tests.instbench.evaluators.builders import save_yolo, yolo_network


@pytest.mark.parametrize("architecture", ["yolov8n-seg.yaml", "yolo11n.yaml"])
def test_the_folder_detects_as_the_file(tmp_path, capsys, architecture) -> None:
    path = save_yolo(tmp_path / "a.pt", yolo_network(architecture))
    assert main(["convert", str(path), str(tmp_path / "out"), "--format", "ultralytics"]) == 0
    assert "2 categories, input 96 pixels" in capsys.readouterr().out
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    [one], [other] = (
        load_detector(p, device="cpu").detect([Image.fromarray(pixels)]) for p in (path, tmp_path / "out")
    )
    assert len(one) > 3
    np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert (one.categories, one.masks) == (other.categories, other.masks)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert weights["model.0.conv.weight"].dtype == torch.float16


def test_folders_in_use_are_kept(tmp_path, capsys) -> None:
    path = save_yolo(tmp_path / "a.pt", yolo_network())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="own: not empty"):
            api.convert_detector(path, tmp_path / "own", overwrite=overwrite)
    api.convert_detector(path, tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        api.convert_detector(path, tmp_path / "out")
    arguments = [
        "convert",
        str(path),
        str(tmp_path / "out"),
        "--format",
        "ultralytics",
        "--overwrite",
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["categories"] == ["cat", "hot dog"]


def test_settings_that_no_architecture_holds_are_refused(tmp_path) -> None:
    network = yolo_network()
    network.model[0].bn.eps = 1e-5
    path = save_yolo(tmp_path / "a.pt", network)
    with pytest.raises(InputError, match=r"model\.0\.bn has an eps"):
        api.convert_detector(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
