from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from instbench.errors import InputError
from instbench.evaluators import load_image_text

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TAG = {
    "url": "",
    "hf_hub": "owner/absent/",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "quick_gelu": True,
}
TEXTS = ["a photo of a cat", "a red object"]


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a model ``tiny-clip`` with the weights ``random`` to open_clip's lists; the hub is out of reach."""
    import open_clip
    from huggingface_hub import constants

    path = tmp_path / "configs" / "tiny-clip.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(path)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {"random": TAG})
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def network() -> torch.nn.Module:
    import open_clip

    torch.manual_seed(0)
    return open_clip.CLIP(**json.loads(json.dumps(CONFIG)), quick_gelu=True).eval()


@pytest.fixture
def noise() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


def _expected(network: torch.nn.Module, images: list[Image.Image]) -> np.ndarray:
    import open_clip
    from open_clip.transform import image_transform

    transform = image_transform(32, is_train=False, mean=TAG["mean"], std=TAG["std"])
    with torch.inference_mode():
        seen = network.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
        read = network.encode_text(open_clip.tokenize(TEXTS), normalize=True)
    return (seen @ read.T).numpy()


def test_weights_by_path_with_the_preprocessing_of_the_tag(network, noise, tmp_path) -> None:
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.save(network.state_dict(), tmp_path / "plain.bin")
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": wrapped}, tmp_path / "training.pt")
    expected = _expected(network, noise)
    assert np.ptp(expected) > 0.01
    for name in ("weights.safetensors", "plain.bin", "training.pt"):
        model = load_image_text(f"tiny-clip/random={tmp_path / name}", device="cpu")
        np.testing.assert_allclose(model.similarity(noise, TEXTS), expected, atol=1e-5)
        identity = model.identity()
        assert identity["model"] == "tiny-clip/random"
        assert identity["preprocess"]["mean"] == [0.5, 0.4, 0.3]
        assert len(identity["sha256"][name]) == 64


def test_weights_by_tag_come_from_the_folder_of_weights(network, noise, tmp_path) -> None:
    with pytest.raises(InputError, match=r"weights are not here .*owner/absent at .*tiny-clip/random"):
        load_image_text("tiny-clip/random")
    (tmp_path / "weights" / "tiny-clip").mkdir(parents=True)
    save_file(network.state_dict(), tmp_path / "weights" / "tiny-clip" / "random.safetensors")
    model = load_image_text("tiny-clip/random", device="cpu")
    np.testing.assert_allclose(model.similarity(noise, TEXTS), _expected(network, noise), atol=1e-5)


def test_the_default_for_photographs_has_its_own_normalisation() -> None:
    import open_clip

    published = open_clip.get_pretrained_cfg("ViT-L-14", "laion2b_s32b_b82k")
    assert published["mean"] == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="laion/CLIP-ViT-L-14-laion2B-s32B-b82K"):
        load_image_text("ViT-L-14/laion2b_s32b_b82k")


def test_folders_in_the_form_of_open_clip_need_no_card(network, noise, tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    preprocess = {"mean": TAG["mean"], "std": TAG["std"]}
    config = {"model_cfg": {**CONFIG, "quick_gelu": True}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    model = load_image_text(folder, device="cpu")
    np.testing.assert_allclose(model.similarity(noise, TEXTS), _expected(network, noise), atol=1e-5)


def test_what_cannot_be_loaded_is_one_line(network, tmp_path) -> None:
    class Gadget:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    torch.save({"state_dict": Gadget()}, tmp_path / "hostile.bin")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.bin")
    torch.save({"a": 1}, tmp_path / "empty.bin")
    for name, message in (
        ("tiny-clip/randm", "has no weights 'randm'; did you mean random"),
        ("tiny-clop/random", "unknown open_clip model 'tiny-clop'; did you mean tiny-clip"),
        (f"tiny-clip={tmp_path / 'hostile.bin'}", r"asks for 'posix\.system'"),
        (f"tiny-clip={tmp_path / 'other.bin'}", "does not fit the network"),
        (f"tiny-clip={tmp_path / 'empty.bin'}", "no dict of tensors"),
        (f"tiny-clip={tmp_path / 'gone.bin'}", "cannot be read"),
        (f"tiny-clip={tmp_path}", "give a file that ends in"),
        ("ViT-B-16-SigLIP/webli", "towers or tokenizers of other libraries"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_image_text(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()
