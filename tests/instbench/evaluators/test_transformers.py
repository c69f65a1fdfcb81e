"""Mask2Former and OWL, against transformers' own forward passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instbench.errors import InputError
from instbench.evaluators import load_detector
from instbench.evaluators.base import Detections
from instbench.evaluators.owl import OwlDetector, query_text
from instbench.layouts import rle
from tests.instbench.evaluators.builders import save_mask2former, save_owl


@pytest.fixture(scope="module")
def noise() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = ((80, 120), (64, 64), (100, 50))
    return [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mask2former(tmp_path_factory.mktemp("m2f"))


@pytest.fixture(scope="module", params=["owlv2", "owlvit"])
def owl(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_owl(tmp_path_factory.mktemp(request.param), request.param)


def _same(left: Detections, right: Detections) -> bool:
    arrays = np.array_equal(left.boxes_xyxy, right.boxes_xyxy) and np.array_equal(left.scores, right.scores)
    return arrays and (left.categories, left.masks) == (right.categories, right.masks)


def test_mask2former_follows_the_instance_inference_of_the_paper(mask2former, noise) -> None:
    from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

    detector = load_detector(mask2former, device="cpu")
    assert detector.categories == ("cat", "dog")
    model = AutoModelForUniversalSegmentation.from_pretrained(mask2former).eval()
    processor = AutoImageProcessor.from_pretrained(mask2former)
    for image in noise:
        seen = detector.detect([image])[0]
        assert seen.masks is not None
        assert len(seen) > 0
        assert (np.diff(seen.scores) <= 0).all()
        with torch.inference_mode():
            inputs = processor(images=[image], return_tensors="pt")
            output = model(**inputs)
        # One candidate at a time, as the published code reads.
        expected = []
        scores = output.class_queries_logits[0].softmax(-1)[:, :-1]
        for query in range(scores.shape[0]):
            logits = output.masks_queries_logits[:, query : query + 1]
            for size in (tuple(inputs["pixel_values"].shape[-2:]), (image.height, image.width)):
                logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear")
            mask = logits[0, 0] > 0
            if mask.any():
                mean = logits[0, 0].sigmoid()[mask].mean()
                expected += [(float(scores[query, label] * mean), label, mask.numpy()) for label in (0, 1)]
        expected.sort(key=lambda one: -one[0])
        np.testing.assert_allclose(seen.scores, [one[0] for one in expected], rtol=1e-5)
        assert list(seen.categories) == [("cat", "dog")[one[1]] for one in expected]
        for box, mask, (_, _, truth) in zip(seen.boxes_xyxy, seen.masks, expected, strict=True):
            assert (rle.decode(mask) != truth).mean() < 0.002
            rows, columns = np.nonzero(rle.decode(mask))
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_mask2former_does_not_depend_on_the_batch(mask2former, noise) -> None:
    detector = load_detector(mask2former, device="cpu")
    together = detector.detect(noise)
    assert all(_same(one, detector.detect([image])[0]) for one, image in zip(together, noise, strict=True))
    assert {"model.safetensors", "config.json", "preprocessor_config.json"} <= set(
        detector.identity()["sha256"]
    )


def test_owl_scores_and_boxes_are_those_of_transformers(owl, noise) -> None:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    base = load_detector(owl, device="cpu")
    assert isinstance(base, OwlDetector)
    names = ("cat", "Hot_Dog", "mouse_(computer_equipment)")
    detector = base.with_categories(names)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(owl).eval()
    processor = AutoProcessor.from_pretrained(owl)
    texts = ["a photo of a cat", "a photo of a hot dog", "a photo of a mouse computer equipment"]
    assert [query_text(name) for name in names] == texts
    for image in noise:
        seen = detector.detect([image])[0]
        inputs = processor(
            text=[texts],
            images=[image],
            return_tensors="pt",
            padding="max_length",
            max_length=16,
            truncation=True,
        )
        with torch.inference_mode():
            output = model(**inputs)
        best = processor.post_process_grounded_object_detection(
            output, threshold=0.0, target_sizes=[(image.height, image.width)]
        )[0]
        scores = output.logits[0].sigmoid()
        np.testing.assert_allclose(
            seen.scores, scores.flatten().sort(descending=True).values[: len(seen)], rtol=1e-4
        )
        top = int(best["scores"].argmax())
        assert seen.categories[0] == names[int(best["labels"][top])]
        limits = np.array([*image.size, *image.size])
        np.testing.assert_allclose(
            seen.boxes_xyxy[0], np.clip(best["boxes"][top].numpy(), 0, limits), atol=1e-2
        )
        assert seen.masks is None


def test_owl_scores_each_category_and_image_on_its_own(owl, noise) -> None:
    base = load_detector(owl, device="cpu")
    many = base.with_categories((*(f"thing {number}" for number in range(40)), "cat"))
    few = base.with_categories(("cat",))
    together = few.detect(noise)
    assert all(_same(one, few.detect([image])[0]) for one, image in zip(together, noise, strict=True))
    seen = many.detect(noise)[0]
    of_cat = seen.scores[[name == "cat" for name in seen.categories]]
    np.testing.assert_allclose(of_cat, together[0].scores[: len(of_cat)], rtol=1e-4)
    assert many.identity()["categories"][-1] == "cat"


def test_owl_needs_sensible_categories(owl, noise) -> None:
    base = load_detector(owl, device="cpu")
    with pytest.raises(InputError, match="was given no categories"):
        base.detect(noise)
    for names, message in (((), "needs categories"), (("a", "a"), "each of them once"), (("_",), "no word")):
        with pytest.raises(InputError, match=message):
            base.with_categories(names)


def test_broken_folders_are_named(mask2former, tmp_path, monkeypatch) -> None:
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(mask2former, tmp_path / "m2f")
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if "class_predictor" in name)
    save_file({name: tensor for name, tensor in state.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"weights are missing .*class_predictor"):
        load_detector(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds only pytorch_model\.bin, a pickle"):
        load_detector(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="a model of type 'bert'; detectors are mask2former"):
        load_detector(folder)


def test_hub_names_stay_offline_when_told_to(monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"owner/absent: not in the cache .*go online, or give the path"):
        load_detector("owner/absent")
