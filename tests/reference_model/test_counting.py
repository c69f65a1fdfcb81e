"""What is counted ahead is what a run of the pipeline does."""

from __future__ import annotations

import pytest
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from reference_model.sampling.counting import CallCounter

from .test_pipeline import PROMPTS, SEEDS
from .tiny import tiny_pipeline

COUNTS = [len(prompt.instances) for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 32),
        ({"mis": 0.5}, 32),
        ({"mis": 0.5}, 3),
        ({"mis": 0.25, "guidance_scale": 1.0}, 2),
        ({"mis": 0.75, "alpha": 0.5}, 4),  # the chains swap the first convolution at different steps
        ({"mis": 0.5, "alpha": (0.5, 0.25, 0.25), "num_inference_steps": 7}, 5),
    ],
)
@pytest.mark.parametrize(
    "scheduler", [None, DDIMScheduler(prediction_type="v_prediction")], ids=["plms", "ddim"]
)
def test_counts_are_those_of_a_run(options, bound, scheduler):
    pipe = tiny_pipeline(scheduler)
    parameters = pipe.resolve_sampling(**options)
    counted = CallCounter(pipe.scheduler, parameters, bound).count(COUNTS)
    drawn = pipe(PROMPTS, SEEDS, output_type="latent", max_unet_batch=bound, **options)
    assert (counted.calls, counted.rows) == (drawn.unet_calls, drawn.unet_rows)


def test_schedulers_that_draw_noise_leave_the_global_generator_alone():
    import torch

    pipe = tiny_pipeline(EulerAncestralDiscreteScheduler(prediction_type="v_prediction"))
    before = torch.get_rng_state()
    CallCounter(pipe.scheduler, pipe.resolve_sampling(mis=0.5), 8).count(COUNTS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("instances", [1, 4, 8])
@pytest.mark.parametrize("share", [0.0, 0.36])
def test_rows_follow_the_formula_of_the_documents(instances, share):
    pipe = tiny_pipeline()
    for steps in (10, 25, 50):
        parameters = pipe.resolve_sampling(num_inference_steps=steps, mis=share, guidance_scale=7.5)
        chained = int(share * steps)
        expected = 2 * (steps + 1) + instances * (2 * chained + 1 if chained else 0)
        assert CallCounter(pipe.scheduler, parameters, 32).count([instances]).rows == expected
