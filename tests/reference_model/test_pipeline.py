"""The pipeline with tiny random weights."""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from reference_model.grounding import GroundedInstance, GroundedPrompt
from reference_model.parameters import SamplingParameters
from reference_model.pipeline import InstanceDiffusionPipeline

from .tiny import tiny_pipeline

MASK = np.zeros((16, 16), dtype=bool)
MASK[3:9, 5:12] = True
PROMPTS = [
    GroundedPrompt(
        "a red cat and a dog",
        (
            GroundedInstance("red cat", box_xyxy=(0.1, 0.1, 0.5, 0.6)),
            GroundedInstance("dog", point_xy=(0.7, 0.7)),
        ),
    ),
    GroundedPrompt("an empty room"),
    GroundedPrompt(
        "a thing",
        (
            GroundedInstance("a", mask=MASK, box_xyxy=(0.3, 0.2, 0.75, 0.6)),
            GroundedInstance("b", scribble_xy=[(0.1, 0.1), (0.3, 0.4)]),
            GroundedInstance("c"),
        ),
    ),
]
SEEDS = [1, 2**62, 3]


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def latents(pipe, prompts=PROMPTS, seeds=SEEDS, **options):
    return pipe(prompts, seeds, output_type="latent", **options).images


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mis": 0.5},
        {"mis": 0.5, "mis_merge": "crop"},
        {"alpha": (0.5, 0.25, 0.25), "masked_attention": "none"},
        {"keep": ("box", "point")},
    ],
)
def test_an_image_does_not_depend_on_its_batch(pipe, options):
    together = latents(pipe, **options)
    alone = torch.cat(
        [latents(pipe, [prompt], [seed], **options) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    )
    backwards = latents(pipe, PROMPTS[::-1], SEEDS[::-1], max_unet_batch=2, **options).flip(0)
    assert torch.allclose(together, alone, atol=2e-5)
    assert torch.allclose(together, backwards, atol=2e-5)


def test_plain_schedule_gives_the_same_images_with_more_calls(pipe):
    fast = pipe(PROMPTS, SEEDS, mis=0.5, output_type="latent")
    plain = pipe(PROMPTS, SEEDS, mis=0.5, output_type="latent", schedule="plain")
    assert torch.allclose(fast.images, plain.images, atol=2e-5)
    # per image (1 + n)(k + 1) 2 + (S - k) 2 with S = 4, k = 2 and n = 2, 0, 3
    assert plain.unet_calls == (18 + 4) + (6 + 4) + (24 + 4)
    assert fast.unet_calls == 5


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(prediction_type="v_prediction"),
        DPMSolverMultistepScheduler(prediction_type="v_prediction"),
        EulerDiscreteScheduler(prediction_type="v_prediction"),
        DDPMScheduler(prediction_type="v_prediction"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_any_scheduler_and_its_noise_are_independent_of_the_batch(scheduler):
    pipe = tiny_pipeline(scheduler)
    together = latents(pipe, mis=0.5)
    alone = latents(pipe, PROMPTS[2:], SEEDS[2:], mis=0.5)
    assert together.isfinite().all()
    assert torch.allclose(together[2:], alone, atol=1e-4 * float(together.std()))


@pytest.mark.parametrize(
    "scheduler",
    [
        UniPCMultistepScheduler(),
        HeunDiscreteScheduler(),
        EulerAncestralDiscreteScheduler(),
        LCMScheduler(),
        LMSDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_both_schedules_agree_under_other_schedulers(scheduler):
    pipe = tiny_pipeline(PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True))
    pipe.scheduler = type(scheduler).from_config(pipe.scheduler.config)  # how diffusers swaps
    fast, plain = (latents(pipe, mis=0.5, schedule=name) for name in ("fast", "plain"))
    assert torch.allclose(fast, plain, atol=5e-5 * float(plain.std()))


def test_seeds_decide_the_noise(pipe):
    first = latents(pipe, PROMPTS[:1], [5])
    assert torch.equal(first, latents(pipe, PROMPTS[:1], [5]))
    assert not torch.allclose(first, latents(pipe, PROMPTS[:1], [6]))
    output = pipe(PROMPTS[:1], output_type="latent")
    assert torch.equal(output.images, latents(pipe, PROMPTS[:1], output.seeds))


def test_location_phrase_and_format_reach_the_image(pipe):
    def draw(**instance):
        prompt = GroundedPrompt("c", (GroundedInstance(**{"phrase": "cat", **instance}),))
        return latents(pipe, [prompt], [0])

    base = draw(box_xyxy=(0.1, 0.1, 0.5, 0.5))
    others = [
        draw(box_xyxy=(0.5, 0.5, 0.9, 0.9)),
        draw(box_xyxy=(0.1, 0.1, 0.5, 0.5), phrase="dog"),
        draw(point_xy=(0.3, 0.3)),
        draw(scribble_xy=[(0.1, 0.1), (0.5, 0.5)]),
        draw(mask=MASK),
        draw(),
    ]
    assert all((base - other).abs().max() > 1e-3 for other in others)


def test_withheld_formats_cannot_be_seen(pipe):
    full = GroundedInstance(
        "a",
        box_xyxy=(0.2, 0.2, 0.6, 0.6),
        point_xy=(0.4, 0.4),
        scribble_xy=[(0.3, 0.3), (0.5, 0.5)],
        mask=MASK,
    )
    for name in ("box", "point", "scribble", "mask"):
        alone = full.keeping((name,))
        shown = latents(pipe, [GroundedPrompt("c", (full,))], [0], keep=(name,), mis=0.5)
        assert torch.equal(shown, latents(pipe, [GroundedPrompt("c", (alone,))], [0], keep=(name,), mis=0.5))


def test_alpha_zero_ignores_the_instances_but_not_the_caption(pipe):
    text = [GroundedPrompt(prompt.caption) for prompt in PROMPTS]
    assert torch.allclose(latents(pipe, alpha=0.0), latents(pipe, text, alpha=0.0), atol=1e-5)
    assert not torch.allclose(latents(pipe, text), latents(pipe, [GroundedPrompt("x")] * 3), atol=1e-3)


def test_save_and_load_round_trip(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    again = InstanceDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    again.set_progress_bar_config(disable=True)
    assert torch.allclose(latents(pipe), latents(again), atol=2e-5)
    assert again.resolve_sampling() == pipe.resolve_sampling()
    assert not again.unet.training
    half = InstanceDiffusionPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.vae.dtype == half.text_encoder.dtype == torch.bfloat16


def test_bfloat16_samples_in_float32(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    half = InstanceDiffusionPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    out = half(PROMPTS[:1], [1], mis=0.5, output_type="latent").images
    assert out.dtype == torch.float32
    assert half(PROMPTS[:1], [1]).images[0].size == (16, 16)
    assert (out - latents(pipe, PROMPTS[:1], [1], mis=0.5)).abs().mean() < 0.2


def test_float16_runs_on_the_cpu_too():
    half = tiny_pipeline().to(torch.float16)
    assert half.unet.dtype == half.text_encoder.dtype == torch.float16
    out = latents(half, mis=0.5)
    assert out.dtype == torch.float32
    assert (out - latents(tiny_pipeline(), mis=0.5)).abs().max() < 0.05
    assert half(PROMPTS[:1], [1]).images[0].size == (16, 16)


def test_model_offloading_moves_parts_in_the_order_of_their_use(pipe):
    offloaded = tiny_pipeline()
    offloaded.enable_model_cpu_offload(device="cpu")  # the same hooks as for an accelerator
    order = offloaded.model_cpu_offload_seq.split("->")
    assert order == ["text_encoder", "unet", "vae"]
    assert len(offloaded._all_hooks) == len(order)
    used = []
    for name in order:
        hook = getattr(offloaded, name)._hf_hook
        before = hook.pre_forward
        hook.pre_forward = lambda module, *args, name=name, before=before, **kwargs: (
            used.append(name) or before(module, *args, **kwargs)
        )
    fast = offloaded(PROMPTS, SEEDS, mis=0.5)
    assert list(dict.fromkeys(used)) == order
    assert used == sorted(used, key=order.index)  # no part is fetched a second time
    assert np.array_equal(np.asarray(fast.images), np.asarray(pipe(PROMPTS, SEEDS, mis=0.5).images))
    plain = latents(offloaded, mis=0.5, schedule="plain", first_conv=pipe.unet.conv_in, alpha=0.5)
    assert torch.allclose(plain, latents(pipe, mis=0.5, alpha=0.5), atol=2e-5)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_compiled_unet_gives_the_same(pipe, backend, tmp_path):
    compiled = tiny_pipeline()
    compiled.unet = torch.compile(compiled.unet, backend=backend)
    conv = {name: torch.randn_like(value) for name, value in pipe.unet.conv_in.state_dict().items()}
    options = {"alpha": 0.5, "first_conv": conv, "num_inference_steps": 2, "guidance_scale": 1.0}
    expected = latents(pipe, PROMPTS[:1], SEEDS[:1], **options)
    assert torch.allclose(latents(compiled, PROMPTS[:1], SEEDS[:1], **options), expected, atol=2e-5)
    compiled.save_pretrained(tmp_path)
    again = InstanceDiffusionPipeline.from_pretrained(tmp_path)
    assert type(again.unet).__name__ == "InstanceUNet"


def test_sampling_defaults_come_from_the_checkpoint_then_from_the_paper(pipe):
    assert pipe.resolve_sampling(mis=0.1, alpha=None) == SamplingParameters(4, 3.0, 1.0, 0.1, "")
    bare = tiny_pipeline(sampling_defaults={})
    assert bare.resolve_sampling() == SamplingParameters(50, 7.5, 1.0, 0.36, "")
    with pytest.raises(ValueError, match="steps"):
        tiny_pipeline(sampling_defaults={"steps": 3})


def test_output_types_and_sizes(pipe):
    images = pipe(PROMPTS, SEEDS).images
    assert [image.size for image in images] == [(16, 16)] * 3
    array = pipe(PROMPTS[:1], SEEDS[:1], output_type="np", height=24, width=32).images
    assert array.shape == (1, 24, 32, 3)
    assert 0 <= array.min() <= array.max() <= 1
    assert pipe([]).images == []


def test_each_distinct_text_is_embedded_once(pipe):
    seen = []
    hook = pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0] if args else kwargs["input_ids"]).shape[0]),
        with_kwargs=True,
    )
    try:
        prompts = [GroundedPrompt("brand new", (GroundedInstance("newer"), GroundedInstance("newer")))] * 2
        pipe(prompts, [1, 2], mis=0.5, output_type="latent")
        assert sum(seen) == 2
        pipe(prompts, [1, 2], mis=0.5, output_type="latent")
        assert sum(seen) == 2
    finally:
        hook.remove()


def test_long_texts_are_cut_with_a_warning_that_shows_the_cut(pipe, caplog):
    phrase = "a phrase of very many letters"
    with caplog.at_level(logging.WARNING):
        output = pipe([GroundedPrompt("c", (GroundedInstance(phrase),))], [0], output_type="latent")
    assert list(output.truncated) == [phrase]
    assert phrase.endswith(output.truncated[phrase])
    assert output.truncated[phrase] in caplog.text
    # Few letters may be many tokens; and what was cut is said for every image, however many texts there were.
    pipe.embedder.capacity = 1
    texts = ["\u00e9" * 12, "\u00e8" * 12]
    for _ in range(2):
        output = pipe([GroundedPrompt(text) for text in texts], [0, 1], output_type="latent")
        assert sorted(output.truncated) == sorted(texts)
    pipe.embedder.capacity = 512


def test_callback_gets_every_step(pipe):
    steps = []
    pipe(PROMPTS, SEEDS, callback_on_step_end=lambda p, i, t, kw: steps.append((i, kw["latents"].shape[0])))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_callback_may_replace_the_latents(pipe):
    def last(pipeline, step, timestep, tensors):
        return {"latents": torch.full_like(tensors["latents"], 2.0)} if step == 3 else {}

    for schedule in ("fast", "plain"):
        assert latents(pipe, mis=0.5, callback_on_step_end=last, schedule=schedule).eq(2.0).all()
    shown = []
    options = {"callback_on_step_end": lambda p, i, t, tensors: shown.append(dict(tensors))}
    latents(pipe, callback_on_step_end_tensor_inputs=[], **options)
    assert shown == [{}] * 4


def test_one_prompt_needs_no_list(pipe):
    assert torch.equal(latents(pipe, PROMPTS[0], 5), latents(pipe, PROMPTS[:1], [5]))


def test_every_mixture_of_formats_may_be_drawn_together(pipe):
    """Hybrid input: each subset of the formats, on three instances of one image."""
    given = {
        "box_xyxy": (0.2, 0.2, 0.7, 0.6),
        "point_xy": (0.4, 0.4),
        "scribble_xy": [(0.3, 0.3), (0.5, 0.5)],
        "mask": MASK,
    }
    subsets = [names for count in range(5) for names in combinations(given, count)]
    instances = [GroundedInstance("a", **{name: given[name] for name in names}) for names in subsets]
    prompts = [
        GroundedPrompt("c", tuple(instances[start : start + 3])) for start in range(0, len(instances), 3)
    ]
    together = latents(pipe, prompts, list(range(len(prompts))), mis=0.5)
    for number, prompt in enumerate(prompts):
        alone = latents(pipe, [prompt], [number], mis=0.5, schedule="plain")
        assert torch.allclose(together[number], alone[0], atol=2e-5), subsets[3 * number : 3 * number + 3]
    singles = latents(pipe, [GroundedPrompt("c", (each,)) for each in instances], [0] * len(instances))
    differences = (singles[:, None] - singles[None]).abs().amax(dim=(2, 3, 4))
    assert differences[~torch.eye(len(instances), dtype=torch.bool)].min() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1]}, "seeds: 1 given for 3"),
        ({"height": 17}, "multiples"),
        ({"output_type": "jpg"}, "output_type"),
        ({"schedule": "x"}, "schedule"),
        ({"masked_attention": "x"}, "masked_attention"),
        ({"keep": ("x",)}, "keep"),
        ({"mis_merge": "x"}, "mis_merge"),
        ({"mis": 1.0}, "mis: 1.0"),
        ({"alpha": (0.5, 0.5, 0.5)}, "alpha"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"callback_on_step_end_tensor_inputs": ["eps"]}, "callback_on_step_end_tensor_inputs"),
        ({"prompts": ["a cat"] * 3}, "prompt 0: a str; wrap the caption"),
    ],
)
def test_bad_settings_are_named(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"prompts": PROMPTS, "seeds": SEEDS, **options})


def test_too_many_instances_name_the_prompt(pipe):
    with pytest.raises(ValueError, match="prompt 1: 5 instances"):
        pipe([PROMPTS[0], GroundedPrompt("c", (GroundedInstance("a"),) * 5)], [0, 1])
