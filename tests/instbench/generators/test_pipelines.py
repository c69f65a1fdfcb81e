"""Folders of diffusers in our sampler: GLIGEN for boxes and text, and plain Stable Diffusion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from instbench.cli.main import main
from instbench.errors import InputError
from instbench.generators.base import SamplingSettings
from instbench.generators.gligen import GligenGenerator
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.generators.pipelines import load_pipeline
from instbench.generators.text_only import TextOnlyGenerator
from reference_model.grounding import GroundedInstance, GroundedPrompt
from reference_model.unet import InstanceUNet
from tests.reference_model.tiny import tiny_foreign_pipeline, tiny_pipeline

from .helpers import instance, layout, request

BOXES = [[0.1, 0.2, 0.6, 0.7], [0.4, 0.4, 0.9, 1.0]]
PHRASES = ["a red thing", "another"]


@pytest.fixture(scope="module")
def gligen(tmp_path_factory):
    pipeline = tiny_foreign_pipeline()
    folder = tmp_path_factory.mktemp("gligen")
    pipeline.save_pretrained(folder)
    return pipeline, folder


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    pipeline = tiny_foreign_pipeline(gligen=False)
    folder = tmp_path_factory.mktemp("stable-diffusion")
    pipeline.save_pretrained(folder)
    return pipeline, folder


def noise(seed: int) -> torch.Tensor:
    return torch.randn((1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(seed))


def test_gligens_unet_predicts_what_diffusers_own_does(gligen):
    pipeline, folder = gligen
    ours = InstanceUNet.from_gligen(folder, subfolder="unet")
    assert ours.state_dict().keys() == pipeline.unet.state_dict().keys()
    generator = torch.Generator().manual_seed(0)
    sample, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 16, generator=generator)
    objects = {
        "boxes": torch.rand(2, 30, 4, generator=generator),
        "positive_embeddings": torch.randn(2, 30, 16, generator=generator),
        "masks": (torch.arange(30) < 3).float().expand(2, -1),
    }
    with torch.no_grad():
        theirs = pipeline.unet(sample, 5, text, cross_attention_kwargs={"gligen": objects}).sample
        prediction = ours(sample, 5, text, ours.position_net(**objects)).sample
        ungrounded = ours(sample, 5, text).sample
    torch.testing.assert_close(prediction, theirs, atol=1e-5, rtol=0)
    assert (prediction - ungrounded).abs().max() > 1e-3


def test_a_whole_sampling_run_agrees_with_diffusers_pipeline(gligen):
    pipeline, folder = gligen
    settings = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "np"}
    expected = pipeline(
        "two things",
        latents=noise(3),
        gligen_boxes=BOXES,
        gligen_phrases=PHRASES,
        gligen_scheduled_sampling_beta=0.5,
        height=16,
        width=16,
        **settings,
    ).images
    ours = load_pipeline(folder, torch.float32)
    ours.set_progress_bar_config(disable=True)
    objects = tuple(
        GroundedInstance(phrase, box_xyxy=tuple(box)) for phrase, box in zip(PHRASES, BOXES, strict=True)
    )
    made = ours(GroundedPrompt("two things", objects), 3, alpha=0.5, mis=0.0, **settings).images
    assert np.abs(made - expected).max() < 1e-4


def test_plain_stable_diffusion_is_a_floor(stable_diffusion):
    pipeline, folder = stable_diffusion
    expected = pipeline("a scene", latents=noise(0), num_inference_steps=4, guidance_scale=2.0).images[0]
    floor = TextOnlyGenerator(folder, device="cpu")
    assert floor.resolve_sampling(SamplingSettings()).alpha == 0.0
    sampling = {"num_inference_steps": 4, "guidance_scale": 2.0, "alpha": 0.0, "mis": 0.0}
    [made] = floor.generate([request(layout("a", instance()), **sampling)])
    assert np.abs(np.asarray(made.image, dtype=int) - np.asarray(expected, dtype=int)).max() <= 1


def test_recommended_settings_of_a_gligen_folder(gligen):
    chosen = GligenGenerator(gligen[1], device="cpu").resolve_sampling(SamplingSettings())
    assert (chosen.num_inference_steps, chosen.guidance_scale) == (50, 7.5)
    assert (chosen.alpha, chosen.mis) == (0.3, 0.0)


def test_a_gligen_folder_runs_from_the_command_line(gligen, tmp_path):
    arguments = [
        "--model",
        "gligen",
        "--checkpoint",
        str(gligen[1]),
        "--limit",
        "2",
        "--num-inference-steps",
        "2",
    ]
    assert main(["run", "shapes-box", *arguments, "-o", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "success"
    assert len(list((tmp_path / "run" / "images").glob("*.png"))) == 2


def renamed(folder: Path, to: Path, kind: str) -> Path:
    to.mkdir()
    index = json.loads((folder / "model_index.json").read_text())
    (to / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}))
    return to


def test_wrong_folders_are_told_in_one_line(gligen, stable_diffusion, tmp_path):
    with pytest.raises(InputError, match="use --model gligen"):
        InstanceDiffusionGenerator(gligen[1])
    with pytest.raises(InputError, match="use --model text-only"):
        GligenGenerator(stable_diffusion[1])
    other = renamed(gligen[1], tmp_path / "other", "StableDiffusionGLIGENTextImagePipeline")
    with pytest.raises(InputError, match="holds a StableDiffusionGLIGENTextImagePipeline, not"):
        GligenGenerator(other)
    tiny_pipeline(grounding_net="gligen", use_scaleu=False).save_pretrained(tmp_path / "boxes")
    with pytest.raises(InputError, match="use --model gligen"):
        InstanceDiffusionGenerator(tmp_path / "boxes")


def test_gligen_for_images_is_refused(gligen, tmp_path):
    folder = renamed(gligen[1], tmp_path / "images", "StableDiffusionGLIGENPipeline")
    tiny_foreign_pipeline(attention_type="gated-text-image").unet.save_pretrained(folder / "unet")
    with pytest.raises(InputError, match="attention_type 'gated-text-image'"):
        GligenGenerator(folder)
    with pytest.raises(ValueError, match="gated-text-image"):
        InstanceUNet.from_gligen(folder, subfolder="unet")
