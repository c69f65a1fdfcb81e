"""Samplers against runs recorded from the published implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reference_model.sampling import (
    alpha_schedule,
    plms_timesteps,
    sample,
    stable_diffusion_alphas_cumprod,
)
from reference_model.sampling.alpha import mis_steps

FIXTURES = Path(__file__).parent / "fixtures"
RECORD = json.loads((FIXTURES / "samplers.json").read_text())
RUNS: dict[str, dict[str, Any]] = RECORD["runs"]
TOLERANCE = 5e-4  # of the standard deviation of the final latents; the float32 floor is about 2e-5
QUICK_PLAIN = ("plms_point_S5_decay_B2",)


@pytest.fixture(scope="module")
def finals():
    with np.load(FIXTURES / "samplers.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def draw(golden_unet, golden_inputs, golden_grounding, golden_keep, load_arrays):
    """Repeats a recorded run; gives its latents and the numbers of UNet and UniFusion calls."""
    conv = load_arrays("sd_first_conv")
    calls = {"unet": 0, "tokens": 0}

    def alone(slot: int) -> dict[str, torch.Tensor]:
        """Grounding of one instance of sample 0, moved to slot 0, as recorded."""
        moved = {}
        for name, tensor in golden_grounding.items():
            moved[name] = torch.zeros_like(tensor[:1])
            moved[name][0, 0] = tensor[0, slot]
        del moved["att_masks"]
        return moved

    def count(name: str):
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    def run(name: str, schedule: str) -> tuple[torch.Tensor, int, int]:
        spec = RUNS[name]
        batch, number = spec["batch"], spec["num_instances"]
        suffix = str(batch)
        noise = golden_inputs["x2" if batch == 2 else "noise1"]
        grounding = {key: value[:batch] for key, value in golden_grounding.items() if key != "att_masks"}
        calls.update(unet=0, tokens=0)
        latents = sample(
            golden_unet,
            noise,
            golden_inputs[f"context{suffix}"],
            golden_inputs[f"uc{suffix}"],
            grounding,
            instance_groundings=tuple(alone(slot) for slot in range(number)),
            instance_contexts=golden_inputs["context_inst"][:number],
            num_inference_steps=spec["S"],
            guidance_scale=spec["guidance"],
            alpha=tuple(spec["alpha_type"]),
            mis=spec["mis"] or 0.0,
            keep=golden_keep[spec["config"]],
            first_conv=conv,
            schedule=schedule,
        )
        return latents, calls["unet"], calls["tokens"]

    handles = [
        golden_unet.register_forward_pre_hook(count("unet")),
        golden_unet.position_net.register_forward_pre_hook(count("tokens")),
    ]
    yield run
    for handle in handles:
        handle.remove()


def test_alpha_lists_are_exact():
    for length, shares, expected in RECORD["alpha_lists"]:
        alpha = (1, 0, 0) if shares is None else shares
        if expected is None:
            with pytest.raises(ValueError, match="falling stage"):
                alpha_schedule(length, alpha)
        else:
            assert alpha_schedule(length, alpha) == expected, (length, shares)


def test_noise_table(finals):
    assert torch.allclose(stable_diffusion_alphas_cumprod(), finals["alphas_cumprod"], atol=1e-7)


@pytest.mark.parametrize("name", list(RUNS))
def test_timesteps_alphas_and_calls_follow_from_the_settings(name):
    spec = RUNS[name]
    timesteps = plms_timesteps(spec["S"])
    assert timesteps[::-1] == spec["ddim_timesteps"]
    alphas = alpha_schedule(len(timesteps), spec["alpha_type"])
    assert alphas == spec["alphas"]
    k = mis_steps(len(timesteps), spec["mis"] or 0.0)
    chains = 1 + (spec["num_instances"] if k else 0)
    evaluations = chains * (k + 1) + len(timesteps) - k if k else len(timesteps) + 1
    assert evaluations * (1 if spec["guidance"] == 1 else 2) == spec["unet_forwards"]


@pytest.mark.parametrize("name", list(RUNS))
def test_fast_schedule_equals_the_recorded_latents(draw, finals, name):
    latents, unet_calls, token_calls = draw(name, "fast")
    expected = finals[f"{name}.final"]
    assert (latents - expected).abs().max() < TOLERANCE * expected.std()
    assert unet_calls <= RUNS[name]["unet_forwards"]
    assert token_calls == 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_PLAIN else pytest.mark.slow) for name in RUNS]
)
def test_plain_schedule_equals_the_recorded_latents_and_calls(draw, finals, name):
    latents, unet_calls, token_calls = draw(name, "plain")
    expected = finals[f"{name}.final"]
    assert (latents - expected).abs().max() < TOLERANCE * expected.std()
    assert unet_calls == RUNS[name]["unet_forwards"]
    assert token_calls == RUNS[name]["unifusion_evals"]
