from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instbench.errors import InputError
from instbench.evaluators import load_detector
from instbench.evaluators.base import Detections
from instbench.evaluators.folders import DetectorCard
from instbench.evaluators.yolo import UltralyticsDetector
from tests.instbench.evaluators.builders import save_yolo, yolo_network

NAMES = ("cat", "hot dog")


@pytest.fixture(scope="module")
def network() -> Any:
    return yolo_network(names=NAMES)


@pytest.fixture(scope="module")
def noise() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = ((80, 120), (96, 96), (200, 90))
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def _assert_equal(left: list[Detections], right: list[Detections]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert (one.categories, one.masks) == (other.categories, other.masks)


def _in_memory(network: Any, kind: Any) -> UltralyticsDetector:
    import copy

    card = DetectorCard(kind=kind, categories=NAMES, image_size=96, border=16)
    return UltralyticsDetector(copy.deepcopy(network).half().float(), card, device="cpu")


@pytest.mark.parametrize("as_ema", [True, False])
def test_segmentation_weights_detect_as_the_network_in_memory(network, noise, tmp_path, as_ema) -> None:
    path = save_yolo(tmp_path / "any.pt", network, as_ema=as_ema)
    detector = load_detector(path, device="cpu")
    found = detector.detect(noise)
    assert detector.categories == NAMES
    assert all(len(one) > 3 and one.masks is not None for one in found)
    _assert_equal(found, _in_memory(network, "ultralytics-segment").detect(noise))
    _assert_equal(found, [detector.detect([image])[0] for image in noise])
    identity = detector.identity()
    assert (identity["confidence"], identity["iou"], identity["max_detections"]) == (0.001, 0.7, 300)
    assert (identity["image_size"], identity["border"]) == (96, 16)
    assert len(identity["sha256"]["any.pt"]) == 64


@pytest.mark.parametrize("architecture", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_detection_weights_give_boxes_without_masks(noise, tmp_path, architecture) -> None:
    network = yolo_network(architecture, NAMES)
    detector = load_detector(save_yolo(tmp_path / "box.pt", network), device="cpu")
    found = detector.detect(noise)
    assert all(len(one) and one.masks is None for one in found)
    _assert_equal(found, _in_memory(network, "ultralytics-detect").detect(noise))
    for one, image in zip(found, noise, strict=True):
        assert (one.boxes_xyxy >= 0).all()
        assert (one.boxes_xyxy[:, 2:] <= np.array(image.size) + 1e-3).all()


def test_end_to_end_segmentation(noise, tmp_path) -> None:
    network = yolo_network("yolo26n-seg.yaml", NAMES)
    found = load_detector(save_yolo(tmp_path / "e2e.pt", network), device="cpu").detect(noise)
    _assert_equal(found, _in_memory(network, "ultralytics-segment").detect(noise))
    assert all(one.masks is not None for one in found)


def test_averaged_weights_come_first(network, noise, tmp_path) -> None:
    import copy

    other = copy.deepcopy(network).half()
    for parameter in other.parameters():
        parameter.data.zero_()
    path = save_yolo(tmp_path / "both.pt", network, model=other)
    _assert_equal(
        load_detector(path, device="cpu").detect(noise),
        _in_memory(network, "ultralytics-segment").detect(noise),
    )


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("place", ["model", "train_args", "inside"])
def test_hostile_pickles_are_refused_and_nothing_runs(network, tmp_path, place) -> None:
    import copy

    marker = tmp_path / "marker"
    gadget = _Call(os.system, f"touch {marker}")
    if place == "inside":
        bad = copy.deepcopy(network)
        bad.criterion = gadget
        path = save_yolo(tmp_path / "bad.pt", network, ema=bad)
    else:
        path = save_yolo(tmp_path / "bad.pt", network, **{place: gadget})
    with pytest.raises(InputError, match=r"bad\.pt: the pickle asks for 'posix\.system'") as caught:
        load_detector(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_calls_into_ultralytics_are_refused_too(network, tmp_path) -> None:
    with quiet():
        from ultralytics.utils.checks import check_requirements
    path = save_yolo(tmp_path / "bad.pt", network, train_args=_Call(check_requirements, "anything"))
    with pytest.raises(InputError, match=r"calls ultralytics\.utils\.checks\.check_requirements"):
        load_detector(path)


def quiet() -> Any:
    from instbench.evaluators.yolo_model import quiet_ultralytics

    return quiet_ultralytics()


def test_what_is_no_usable_checkpoint_is_named(network, tmp_path, monkeypatch) -> None:
    import copy

    def refused(message: str, path: Path) -> None:
        with pytest.raises(InputError, match=message) as caught:
            load_detector(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("cannot be read", tmp_path / "gone.pt")
    whole = save_yolo(tmp_path / "whole.pt", network)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:50_000])
    refused("truncated", tmp_path / "cut.pt")
    torch.save({"model": network.state_dict()}, tmp_path / "state.pt")
    refused("holds no ultralytics network", tmp_path / "state.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "linear.pt")
    refused("holds a torch.nn.modules.linear.Linear", tmp_path / "linear.pt")
    refused("quantisation-aware", save_yolo(tmp_path / "qat.pt", network, modelopt={"a": 1}))
    for field, value, message in (
        ("names", {0: "a", 2: "b"}, "field names"),
        ("yaml", None, "field yaml"),
        ("yaml", {**network.yaml, "activation": "__import__('os').system('true')"}, "field activation"),
        (
            "yaml",
            {**network.yaml, "backbone": [[-1, 1, "os.system", ["true"]]]},
            "unknown module 'os.system'",
        ),
        ("yaml", {**network.yaml, "channels": 4}, "4 channels"),
        ("names", {0: "cat"}, "does not fit the network"),
    ):
        broken = copy.deepcopy(network)
        setattr(broken, field, value)
        refused(message, save_yolo(tmp_path / "broken.pt", broken))


def test_a_known_name_says_where_its_file_comes_from_and_goes_to(network, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=r"yolov8m-seg\.pt: no such file; download https://github\.com/ultralytics"
    ):
        load_detector("yolov8m-seg")
    with pytest.raises(InputError, match=r"v8\.3\.0/yolo11x\.pt and put it there"):
        load_detector("yolo11x.pt")
    (tmp_path / "weights").mkdir()
    save_yolo(tmp_path / "weights" / "yolov8m-seg.pt", network)
    assert load_detector("yolov8m-seg", device="cpu").categories == NAMES
