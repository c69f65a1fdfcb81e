"""Alpha lists, solvers, merges, and the two schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    RePaintScheduler,
    ScoreSdeVeScheduler,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_model.sampling import (
    PlmsSolver,
    SchedulerSolver,
    alpha_schedule,
    default_unet_batch,
    make_solver,
    plms_timesteps,
    sample,
    stable_diffusion_alphas_cumprod,
)
from reference_model.sampling.alpha import mis_steps
from reference_model.sampling.api import regions_from_boxes
from reference_model.sampling.conditioning import concatenate_grounding, normalise_grounding, null_grounding
from reference_model.sampling.multi_instance_sampler import merge_average, merge_crop

from .tiny import tiny_unet

SLOTS, SEGMENT, WIDTH = 4, 64, 16


def drive(solver, latents, model):
    """Runs all steps of a solver against a function (latents, timestep) -> output."""
    visited = []
    for index in range(len(solver.timesteps)):
        step = solver.step(latents, index)
        asked = next(step)
        while True:
            visited.append(int(asked[1]))
            try:
                asked = step.send(model(*asked))
            except StopIteration as finished:
                latents = finished.value
                break
    return latents, visited


def grounding(rows: int, seed: int) -> dict:
    """Two instances per row."""
    gen = torch.Generator().manual_seed(seed)
    low = torch.rand(rows, SLOTS, 2, generator=gen) * 0.5
    boxes = torch.cat((low, low + 0.3), dim=-1)
    masks = torch.zeros(rows, SLOTS)
    masks[:, :2] = 1
    where = torch.rand(rows, SLOTS, 8, 8, generator=gen) > 0.5
    return {
        "boxes": boxes * masks[..., None],
        "masks": masks,
        "positive_embeddings": torch.randn(rows, SLOTS, WIDTH, generator=gen),
        "scribbles": torch.rand(rows, SLOTS, 10, generator=gen),
        "polygons": torch.rand(rows, SLOTS, 16, generator=gen),
        "points": torch.rand(rows, SLOTS, 2, generator=gen),
        "segs": (torch.rand(rows, SLOTS, SEGMENT, SEGMENT, generator=gen) > 0.5).float(),
        "instance_masks": where & (masks > 0)[..., None, None],
    }


@pytest.mark.parametrize(
    ("steps", "alpha", "expected"),
    [
        (5, 0.8, [1, 1, 1, 1, 0]),
        (5, (0.4, 0.4, 0.2), [1, 1, 0.5, 0, 0]),
        (3, (0, 1, 0), [0.6666666666666666, 0.3333333333333333, 0]),
        (5, (0, 1, 0), [0.8, 0.6000000000000001, 0.4, 0.2, 0]),
        (1, 0.8, [0]),
        (4, 1.0, [1, 1, 1, 1]),
    ],
)
def test_alpha_schedule_equals_recorded_lists(steps, alpha, expected):
    assert alpha_schedule(steps, alpha) == expected


def test_alpha_schedule_truncates_like_the_published_code():
    assert alpha_schedule(50, 0.58).count(1.0) == 28


@pytest.mark.parametrize("alpha", [1.2, -0.1, (0.5, 0.5), (0.5, 0.4, 0.3)])
def test_alpha_schedule_refuses_bad_shares(alpha):
    with pytest.raises(ValueError, match="alpha"):
        alpha_schedule(10, alpha)


def test_alpha_schedule_refuses_the_lengths_that_the_published_rule_cannot_do():
    with pytest.raises(ValueError, match="49 steps"):
        alpha_schedule(99, (0.5, 0.5, 0))


@given(steps=st.integers(1, 60), full=st.floats(0, 1), decay=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_alpha_schedule_never_rises(steps, full, decay):
    decay = decay * (1 - full)
    try:
        alphas = alpha_schedule(steps, (full, decay, 1 - full - decay))
    except ValueError as error:
        assert "falling stage" in str(error)  # noqa: PT017
        return
    assert len(alphas) == steps
    assert all(0 <= later <= now <= 1 for now, later in pairwise(alphas))


def test_mis_steps():
    assert mis_steps(50, 0.36) == 18
    assert mis_steps(10, 0.0) == 0
    with pytest.raises(ValueError, match="mis"):
        mis_steps(10, 1.0)


def test_plms_timesteps_as_published():
    assert plms_timesteps(5) == [801, 601, 401, 201, 1]
    assert len(plms_timesteps(7)) == 8
    assert len(plms_timesteps(30)) == 31
    assert plms_timesteps(3) == [667, 334, 1]  # the published rule adds step 1000 of 0 to 999 and fails
    for count in range(1, 501):
        assert max(plms_timesteps(count)) < 1000
    with pytest.raises(ValueError, match="num_inference_steps"):
        plms_timesteps(501)


def test_stable_diffusion_noise_table():
    table = stable_diffusion_alphas_cumprod()
    assert table[0].item() == pytest.approx(0.9991499781608582, abs=1e-7)
    assert table[901].item() == pytest.approx(0.014004898257553577, abs=1e-8)


def test_plms_evaluates_the_first_step_twice():
    _, visited = drive(PlmsSolver(5), torch.zeros(1, 1, 2, 2), lambda x, t: torch.zeros_like(x))
    assert visited == [801, 601, 601, 401, 201, 1]


def test_plms_with_one_step_evaluates_it_twice():
    _, visited = drive(PlmsSolver(1), torch.zeros(1, 1, 2, 2), lambda x, t: torch.zeros_like(x))
    assert visited == [1, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_plms_finds_a_known_image_from_any_prediction_type(prediction):
    table = stable_diffusion_alphas_cumprod()
    gen = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 4, 4, generator=gen)

    def oracle(x, t):
        a = table[int(t)]
        eps = (x - a.sqrt() * clean) / (1 - a).sqrt()
        if prediction == "epsilon":
            return eps
        if prediction == "sample":
            return clean.expand_as(x)
        return a.sqrt() * eps - (1 - a).sqrt() * clean

    start = table[801].sqrt() * clean + (1 - table[801]).sqrt() * noise
    out, _ = drive(PlmsSolver(5, prediction_type=prediction), start, oracle)
    final = table[0]
    assert torch.allclose(out, final.sqrt() * clean + (1 - final).sqrt() * noise, atol=2e-3)


def test_plms_refuses_an_unknown_prediction():
    with pytest.raises(ValueError, match="prediction_type"):
        PlmsSolver(5, prediction_type="flow")


def test_pndm_stands_for_plms_and_other_schedulers_run_themselves():
    pndm = PNDMScheduler(beta_schedule="squaredcos_cap_v2", skip_prk_steps=True)
    assert isinstance(make_solver(pndm, 5), PlmsSolver)
    assert isinstance(make_solver(PNDMScheduler(), 5), SchedulerSolver)
    assert isinstance(make_solver(DDIMScheduler(), 5), SchedulerSolver)


def test_scheduler_solver_equals_the_scheduler_and_leaves_it_alone():
    scheduler = DDIMScheduler()
    gen = torch.Generator().manual_seed(0)
    start, output = torch.randn(2, 1, 1, 4, 4, generator=gen)
    out, visited = drive(SchedulerSolver(scheduler, 4), start, lambda x, t: output * x.mean())
    assert len(visited) == 4
    assert scheduler.num_inference_steps is None
    scheduler.set_timesteps(4)
    expected = start
    for timestep in scheduler.timesteps:
        expected = scheduler.step(output * expected.mean(), timestep, expected).prev_sample
    assert torch.equal(out, expected)


def test_forks_have_histories_of_their_own():
    solver = PlmsSolver(4)
    first, second = solver.fork(), solver.fork()
    x = torch.ones(1, 1, 1, 1)
    step = first.step(x, 0)
    next(step)
    step.send(x)
    with pytest.raises(StopIteration):
        step.send(x)
    assert len(first._history) == 1
    assert second._history == []


@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(0, 3), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_merge_average_is_the_mean_of_all_chains_of_an_image(seed, counts):
    gen = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(counts), 1, 2, 2, generator=gen)
    images = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)], dtype=torch.long)
    chains = torch.randn(len(images), 1, 2, 2, generator=gen)
    merged = merge_average(latents, chains, images)
    for image in range(len(counts)):
        expected = torch.cat((latents[image : image + 1], chains[images == image])).mean(0)
        assert torch.allclose(merged[image], expected, atol=1e-6)


def test_merge_crop_pastes_rows_as_y_and_columns_as_x():
    latents = torch.zeros(1, 1, 4, 8)
    regions = regions_from_boxes(torch.tensor([[0.5, 0.0, 1.0, 0.25], [0.0, 0.0, 0.0, 0.0]]), 4, 8)
    merged = merge_crop(latents, torch.ones(2, 1, 4, 8), torch.tensor([0, 0]), regions)
    assert merged[0, 0, 0, 4:].eq(1).all()
    assert merged.sum() == 4
    assert latents.sum() == 0


def test_regions_keep_at_least_one_cell():
    regions = regions_from_boxes(torch.tensor([[0.99, 0.99, 0.995, 0.999]]), 8, 8)
    assert regions.sum() == 1
    assert regions[0, 7, 7]


def test_grounding_names_and_nulls():
    tensors = grounding(2, 0)
    published = {**tensors, "text_embeddings": tensors["positive_embeddings"], "att_masks": None}
    del published["positive_embeddings"]
    assert "positive_embeddings" in normalise_grounding(published)
    with pytest.raises(ValueError, match="boxes"):
        normalise_grounding({"masks": tensors["masks"]})
    nested = {**tensors, "format_masks": {"box": tensors["masks"]}}
    null = null_grounding(nested, 3)
    assert null["format_masks"]["box"].shape == (3, SLOTS)
    assert not null["boxes"].any()
    with pytest.raises(ValueError, match="scribbles given for some chains only"):
        concatenate_grounding([tensors, {k: v for k, v in tensors.items() if k != "scribbles"}])
    with pytest.raises(ValueError, match="segs has sizes"):
        concatenate_grounding([tensors, {**tensors, "segs": tensors["segs"][..., :32]}])
    joined = concatenate_grounding([{k: v for k, v in tensors.items() if k != "segs"}, tensors])
    assert not joined["segs"][:2].any()
    assert torch.equal(joined["segs"][2:], tensors["segs"])


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


@pytest.fixture(scope="module")
def inputs():
    gen = torch.Generator().manual_seed(3)
    return {
        "noise": torch.randn(2, 4, 8, 8, generator=gen),
        "context": torch.randn(2, 6, WIDTH, generator=gen),
        "negative_context": torch.randn(2, 6, WIDTH, generator=gen),
        "grounding": grounding(2, 1),
        "instance_groundings": (grounding(2, 2), grounding(2, 3)),
        "instance_contexts": tuple(torch.randn(2, 2, 6, WIDTH, generator=gen)),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mis": 0.5},
        {"mis": 0.5, "mis_merge": "crop"},
        {"mis": 0.5, "instance_counts": [1, 2]},
        {"mis": 0.5, "alpha": (0.25, 0.5, 0.25), "masked_attention": "published"},
        {"guidance_scale": 1.0, "mis": 0.5},
        {"mis": 0.75, "alpha": 0.5, "swap": True},
        {"solver": SchedulerSolver(DDIMScheduler(), 4), "mis": 0.5},
    ],
)
def test_fast_schedule_equals_plain(unet, inputs, options):
    options = dict(options)
    if options.pop("swap", False):
        gen = torch.Generator().manual_seed(9)
        options["first_conv"] = {
            "weight": torch.randn(unet.conv_in.weight.shape, generator=gen) * 0.2,
            "bias": torch.randn(unet.conv_in.bias.shape, generator=gen),
        }
    before = unet.conv_in.weight.clone()
    shared = {"num_inference_steps": 4, "guidance_scale": 3.0, **options}
    plain = sample(unet, **inputs, schedule="plain", **shared)
    fast = sample(unet, **inputs, schedule="fast", max_unet_batch=5, **shared)
    assert (fast - plain).abs().max() < 5e-5 * plain.std()
    assert torch.equal(unet.conv_in.weight, before)


def test_calls_of_both_schedules(unet, inputs):
    calls = []
    hooks = [
        unet.register_forward_pre_hook(lambda *_: calls.append("unet")),
        unet.position_net.register_forward_pre_hook(lambda *_: calls.append("tokens")),
    ]
    try:
        sample(unet, **inputs, num_inference_steps=4, mis=0.5, schedule="plain")
        # (1 + n)(k + 1) 2 + (S - k) 2 with n = 2 instances, S = 4 steps, k = 2
        assert calls.count("unet") == calls.count("tokens") == 3 * 3 * 2 + 2 * 2
        calls.clear()
        sample(unet, **inputs, num_inference_steps=4, mis=0.5, schedule="fast")
        assert calls.count("unet") == 5
        assert calls.count("tokens") == 3  # two chunks of chains, one null
    finally:
        for hook in hooks:
            hook.remove()


def test_the_swapped_convolution_matters(unet, inputs):
    conv = {"weight": torch.zeros_like(unet.conv_in.weight), "bias": torch.zeros_like(unet.conv_in.bias)}
    shared = {"num_inference_steps": 4, "alpha": 0.5}
    assert not torch.allclose(
        sample(unet, **inputs, **shared), sample(unet, **inputs, first_conv=conv, **shared), atol=1e-3
    )


def test_no_grounding_leaves_the_gated_layers_out(unet, inputs):
    text = {key: inputs[key] for key in ("noise", "context", "negative_context")}
    fast = sample(unet, **text, num_inference_steps=4)
    off = sample(unet, **text, grounding=inputs["grounding"], num_inference_steps=4, alpha=0.0)
    assert torch.allclose(fast, off, atol=1e-5)


def test_callback_sees_and_replaces_latents(unet, inputs):
    seen = []

    def callback(index, timestep, latents):
        seen.append((index, int(timestep), latents.shape[0]))
        return torch.zeros_like(latents) if index == 3 else None

    out = sample(unet, **inputs, num_inference_steps=4, mis=0.5, callback=callback)
    assert [step[0] for step in seen] == [0, 1, 2, 3]
    assert {step[2] for step in seen} == {2}
    assert not out.any()


@pytest.mark.parametrize("schedule", ["plain", "fast"])
def test_every_form_of_the_inputs_gives_the_same(unet, inputs, schedule):
    """Published names, arrays, one row for all images, masks for some chains only, keep in any order."""
    options = {"num_inference_steps": 4, "mis": 0.5, "schedule": schedule, "masked_attention": "none"}
    expected = sample(unet, **inputs, keep=("box", "mask"), **options)
    shared = {name: tensor[:1] for name, tensor in inputs["grounding"].items()}
    named = {**inputs["grounding"], "text_masks": torch.ones(2, SLOTS), "points": None}
    named["text_embeddings"] = named.pop("positive_embeddings").numpy()
    named["att_masks"] = named.pop("instance_masks")
    instances = [dict(each) for each in inputs["instance_groundings"]]
    for each in instances:
        del each["instance_masks"]
        each["points"] = None
    changed = {**inputs, "grounding": named, "instance_groundings": instances}
    changed["noise"] = inputs["noise"].numpy()
    changed["instance_contexts"] = torch.stack(inputs["instance_contexts"])
    actual = sample(unet, **changed, keep=["mask", "box"], **options)
    assert (actual - expected).abs().max() < 1e-6
    one = sample(unet, **{**inputs, "grounding": shared}, **options)
    repeated = {name: tensor.expand(2, *tensor.shape[1:]) for name, tensor in shared.items()}
    assert torch.equal(one, sample(unet, **{**inputs, "grounding": repeated}, **options))


def test_alpha_none_is_on_in_all_steps(unet, inputs):
    assert alpha_schedule(3, None) == [1.0, 1.0, 1.0]
    options = {"num_inference_steps": 2}
    assert torch.equal(sample(unet, **inputs, alpha=None, **options), sample(unet, **inputs, **options))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (RePaintScheduler(), "RePaintScheduler needs original_image, mask at every step"),
        (ScoreSdeVeScheduler(), "ScoreSdeVeScheduler has no step"),
    ],
)
def test_schedulers_for_other_tasks_are_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        make_solver(scheduler, 4)


def test_flow_matching_starts_from_the_noise_itself():
    solver = make_solver(FlowMatchEulerDiscreteScheduler(), 4)
    assert solver.initial_scale == 1.0
    noise, image = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    out, _ = drive(solver, noise, lambda x, t: noise - image)
    assert torch.allclose(out, image, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "slow"}, "schedule"),
        ({"keep": ("boxes",)}, "keep: unknown format 'boxes'"),
        ({"num_inference_steps": 2.5}, "num_inference_steps: 2.5 is not a whole number"),
        (
            {"first_conv": {"weight": torch.zeros(2)}},
            r"first_conv: needs weight \(16, 4, 3, 3\), bias \(16,\), not",
        ),
        ({"keep": "bx"}, "keep: unknown format 'bx'"),
        ({"grounding": {**grounding(2, 1), "depth": torch.zeros(2)}}, "grounding: 'depth' is unknown"),
        ({"grounding": grounding(3, 1)}, "grounding: a tensor of 3 rows for 2 images"),
        (
            {"instance_groundings": (grounding(2, 1), grounding(5, 1)), "mis": 0.5},
            r"instance_groundings\[1\]: a tensor of 5 rows",
        ),
        ({"context": torch.zeros(3, 6, WIDTH)}, r"context: shape \(3, 6, 16\) for 2 images"),
        ({"negative_context": torch.zeros(6)}, "negative_context: shape"),
        ({"mis_merge": "max"}, "mis_merge"),
        ({"instance_contexts": ()}, "instance_contexts"),
        ({"negative_context": None}, "negative_context"),
        ({"max_unet_batch": 0}, "max_unet_batch"),
        ({"instance_counts": [3, 0], "mis": 0.5}, "instance_counts"),
    ],
)
def test_sample_refuses_bad_arguments(unet, inputs, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(unet, **{**inputs, "num_inference_steps": 4, **changes})


def test_default_unet_batch():
    assert default_unet_batch(16, 16, "cpu") == 32
    assert default_unet_batch(64, 64, "cpu") == 2
    assert default_unet_batch(64, 64, "cuda") == 32
