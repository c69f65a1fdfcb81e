"""Fine-tuning of a small pipeline in Stable Diffusion's layout, from photographs of different sizes to a pipeline."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from reference_model import InstanceDiffusionPipeline, InstanceUNet
from reference_model.convnext import ConvNeXt
from reference_model.grounding import GroundedInstance, GroundedPrompt
from reference_model.training.__main__ import main
from reference_model.training.base import load_segment_backbone
from reference_model.training.recipe import UNetRecipe
from reference_model.training.trainer import GroundedDenoiser
from tests.reference_model.tiny import tiny_tokenizer, tiny_unet

SIDE, WIDTH = 64, 16
CONVNEXT = {"convnext_depths": [1, 1, 1, 1], "convnext_widths": [4, 4, 4, 4]}
SMALL = {
    "batch_size": 2,
    "steps": 3,
    "warmup": 1,
    "lr": 0.01,
    "image_size": SIDE,
    "segment_size": SIDE,
    "grounding_mid_dim": 16,
    "autocast": None,
    **CONVNEXT,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pipeline folder of diffusers with the parts of Stable Diffusion 1.5, each very small."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer(77)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=WIDTH,
            norm_num_groups=8,
        ),
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory, base):
    """Four pictures of different sizes with polygons, a crowd and one picture without caption; their latents."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations, captions = [], [], []
    for number, (width, height) in enumerate([(120, 80), (64, 64), (70, 150), (200, 140)]):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        x, y, side = width * 0.3, height * 0.3, min(width, height) * 0.4
        polygon = [[x, y, x + side, y, x + side, y + side, x, y + side]]
        for part, more in enumerate(({"segmentation": polygon}, {}, {"iscrowd": 1, "segmentation": polygon})):
            annotations.append(
                {
                    "id": 10 * number + part,
                    "image_id": number,
                    "category_id": 1 + part % 2,
                    "bbox": [x, y, side, side],
                    **more,
                }
            )
        if number:
            captions.append({"image_id": number, "caption": f"picture {number}"})
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    (root / "captions.json").write_text(json.dumps({"annotations": captions}))
    for extra in ([], ["--flip"]):
        encode = ["latents", "--data", str(root), "--vae", str(base / "vae"), "--size", str(SIDE), *extra]
        assert main([*encode, "--batch-size", "3"]) == 0
    return root


def fine_tune(data, base, output, *extra, **changes):
    arguments = ["unet", "--recipe", "paper", "--base", str(base), "--data", str(data), "-o", str(output)]
    arguments += ["--latents", str(data / "latents.npy")]
    arguments += ["--flipped-latents", str(data / "latents-flipped.npy")]
    for name, value in {**SMALL, **changes}.items():
        arguments += ["--set", f"{name}={json.dumps(value)}"]
    return main([*arguments, *extra])


def weights(folder):
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_latents_are_those_of_the_canvas_and_its_mirror_image(data, base):
    straight, mirrored = np.load(data / "latents.npy"), np.load(data / "latents-flipped.npy")
    assert straight.shape == mirrored.shape == (4, 4, 32, 32)
    vae = AutoencoderKL.from_pretrained(base / "vae")
    picture = np.asarray(Image.open(data / "images" / "1.png").convert("RGB"))
    for latents, pixels in ((straight, picture), (mirrored, picture[:, ::-1])):
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(image).latent_dist.mode()[0] * vae.config.scaling_factor
        assert np.allclose(latents[1], expected.numpy(), atol=2e-3)


def test_only_the_grounding_parts_learn_and_the_result_draws(data, base, tmp_path):
    assert fine_tune(data, base, tmp_path / "run") == 0
    before, after = (
        load_file(base / "unet" / "diffusion_pytorch_model.safetensors"),
        weights(tmp_path / "run"),
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    trained = {name: value for name, value in after.items() if name not in before}
    assert all(name.startswith(("position_net.", "scaleu.")) or ".fuser." in name for name in trained)
    gates = [value for name, value in trained.items() if "alpha_" in name]
    assert gates
    assert all(value.abs() > 0 for value in gates)
    scales = [value for name, value in trained.items() if name.startswith("scaleu.")]
    assert any(value.abs().sum() > 0 for value in scales)

    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["recipe"]["optimizer"] == "adamw"
    assert recipe["recipe"]["rules"]["drop"] == [0.1, 0.1, 0.1, 0.1]
    arguments = ["pipeline", "--base", str(base), "--unet", str(tmp_path / "run" / "unet")]
    sampling = json.dumps({"num_inference_steps": 2, "mis": 0.5})
    assert main([*arguments, "-o", str(tmp_path / "out"), "--sampling", sampling]) == 0
    pipeline = InstanceDiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    assert pipeline.scheduler.config.beta_end == 0.012
    assert pipeline.unet.config.masked_attention == "correct"
    pipeline.set_progress_bar_config(disable=True)
    layout = GroundedPrompt("a dog", (GroundedInstance("dog", box_xyxy=(0.1, 0.1, 0.6, 0.6)),))
    (picture,) = pipeline([layout], seeds=[0]).images
    assert picture.size == (SIDE, SIDE)
    recipes = json.loads((tmp_path / "out" / "recipes.json").read_text())
    assert list(recipes) == ["unet"]


def test_interrupted_and_resumed_equals_uninterrupted(data, base, tmp_path):
    assert fine_tune(data, base, tmp_path / "whole") == 0
    assert fine_tune(data, base, tmp_path / "halves", "--max-minutes", "0") == 1
    (checkpoint,) = (tmp_path / "halves" / "checkpoints").iterdir()
    saved = load_file(checkpoint / "model.safetensors")
    assert saved
    assert all(name.startswith(("position_net.", "scaleu.")) or ".fuser." in name for name in saved)
    assert fine_tune(data, base, tmp_path / "halves") == 0
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())


def test_a_model_with_closed_gates_predicts_what_the_base_does(data, base, tmp_path):
    assert fine_tune(data, base, tmp_path / "run", steps=0) == 0
    unet = InstanceUNet.from_pretrained(tmp_path / "run" / "unet")
    original = UNet2DConditionModel.from_pretrained(base / "unet")
    assert unet.config.max_instances == 30
    gen = torch.Generator().manual_seed(0)
    sample, context = torch.randn(1, 4, 32, 32, generator=gen), torch.randn(1, 77, WIDTH, generator=gen)
    with torch.no_grad():
        tokens = torch.randn(1, unet.position_net.num_tokens, WIDTH, generator=gen)
        ours = unet(sample, 500, context, grounding_tokens=tokens).sample
        theirs = original(sample, 500, context).sample
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_batch_may_be_computed_in_parts(data, base, tmp_path):
    seen = []
    forward = GroundedDenoiser.forward

    def counted(self, sample, *rest):
        seen.append(len(sample))
        return forward(self, sample, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroundedDenoiser, "forward", counted)
        assert fine_tune(data, base, tmp_path / "parts", batch_size=4, micro_batch=2, steps=2) == 0
    assert seen == [2, 2, 2, 2]
    start = weights_at_start(data, base, tmp_path)
    assert any(not torch.equal(value, start[name]) for name, value in weights(tmp_path / "parts").items())
    with pytest.raises(ValueError, match="micro_batch: 3 does not divide batch_size 4"):
        UNetRecipe(batch_size=4, micro_batch=3)


def weights_at_start(data, base, tmp_path):
    assert fine_tune(data, base, tmp_path / "start", steps=0) == 0
    return weights(tmp_path / "start")


def test_another_base_and_another_noise_schedule_are_refused(data, base, tmp_path, caplog):
    assert fine_tune(data, base, tmp_path / "run", steps=1) == 0
    other = tmp_path / "other"
    shutil.copytree(base, other)
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"] += 1
    save_file(tensors, file)
    assert fine_tune(data, other, tmp_path / "run") == 2
    assert "holds a run with another base_sha256" in caplog.text
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "beta_end": 0.02}))
    assert fine_tune(data, other, tmp_path / "new") == 2
    assert "beta_end is 0.02, the recipe has 0.012; give --set 'beta_end=0.02'" in caplog.text


def test_a_folder_of_a_unet_alone_is_a_base_too(data, base, tmp_path):
    parts = ["--text-encoder", str(base / "text_encoder"), "--tokenizer", str(base / "tokenizer")]
    assert fine_tune(data, base / "unet", tmp_path / "run", *parts, steps=0) == 0
    assert set(weights(tmp_path / "run")) == set(weights_at_start(data, base, tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run(data, base, tmp_path, caplog):
    broken = tmp_path / "latents.npy"
    np.save(broken, np.full_like(np.load(data / "latents.npy"), np.nan))
    arguments = ["--latents", str(broken), "--flipped-latents", str(broken)]
    assert fine_tune(data, base, tmp_path / "run", *arguments) == 2
    assert "step 0: the loss is not finite" in caplog.text


def test_bad_input_is_named(data, base, tmp_path, caplog):
    assert main(["unet", "--data", str(data), "--latents", "x", "-o", str(tmp_path)]) == 2
    assert "--text-encoder: needed without --base" in caplog.text
    assert fine_tune(data, data, tmp_path / "a") == 2
    assert "no unet/config.json; give a Stable Diffusion pipeline folder" in caplog.text
    assert fine_tune(data, base / "unet", tmp_path / "a") == 2
    assert "text_encoder: no such folder; give --text-encoder" in caplog.text
    assert fine_tune(data, base, tmp_path / "b", optimizer="sgd") == 2
    assert "optimizer: 'sgd' is unknown; use one of muon, adamw" in caplog.text
    assert fine_tune(data, base, tmp_path / "c", "--set", 'rules={"dropp": 1}') == 2
    assert "no rule 'dropp'; see PaperRules" in caplog.text
    narrow = tmp_path / "narrow.npy"
    np.save(narrow, np.zeros((4, 8, 8, 8), np.float16))
    assert fine_tune(data, base, tmp_path / "d", "--latents", str(narrow)) == 2
    assert "8 channels, the base takes 4; encode with" in caplog.text
    plain = ["unet", "--recipe", "paper", "--base", str(base), "--data", str(data), "-o", str(tmp_path / "e")]
    settings = [text for name, value in SMALL.items() for text in ("--set", f"{name}={json.dumps(value)}")]
    assert main([*plain, "--latents", str(tmp_path / "none.npy"), *settings]) == 2
    assert "none.npy: cannot be read" in caplog.text
    assert main([*plain, "--latents", str(data / "latents.npy"), *settings]) == 2
    assert "flip: the rules mirror images" in caplog.text


def test_the_segment_branch_may_start_from_a_trained_convnext(tmp_path):
    trained = ConvNeXt((1, 1, 1, 1), (4, 4, 4, 4)).state_dict()
    extra = {"norm.weight": torch.ones(4), "head.weight": torch.ones(10, 4)}
    save_file({**trained, **extra}, tmp_path / "convnext.safetensors")
    unet = tiny_unet()
    load_segment_backbone(unet, tmp_path / "convnext.safetensors")
    for name, value in unet.position_net.convnext_tiny_backbone.state_dict().items():
        assert torch.equal(value, trained[name])
    # The original release's own file: `torch.save({"model": …})`.
    torch.save({"model": {**trained, **extra}}, tmp_path / "convnext.pth")
    unet = tiny_unet()
    load_segment_backbone(unet, tmp_path / "convnext.pth")
    assert torch.equal(
        unet.position_net.convnext_tiny_backbone.stages[0][0].gamma, trained["stages.0.0.gamma"]
    )
    (tmp_path / "broken.pth").write_bytes((tmp_path / "convnext.pth").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.pth: no weights of a ConvNeXt"):
        load_segment_backbone(unet, tmp_path / "broken.pth")
    save_file(extra, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: not the ConvNeXt of this model"):
        load_segment_backbone(unet, tmp_path / "other.safetensors")
    without = tiny_unet(convnext_depths=None, convnext_widths=None)
    with pytest.raises(ValueError, match="no segment branch"):
        load_segment_backbone(without, tmp_path / "convnext.safetensors")
