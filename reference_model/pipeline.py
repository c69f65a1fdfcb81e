"""`InstanceDiffusionPipeline`: grounded prompts in, images out, in diffusers' shape."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Self

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from reference_model.grounding import (
    GroundedPrompt,
    build_grounding,
    instance_prompts,
    paste_regions,
    validate_prompt,
)
from reference_model.memory import is_out_of_memory, release_memory
from reference_model.parameters import SamplingParameters, check_defaults, resolve_parameters
from reference_model.sampling.alpha import Merge, alpha_schedule, check_merge, mis_steps
from reference_model.sampling.denoiser import (
    FastDenoiser,
    PlainDenoiser,
    default_unet_batch,
)
from reference_model.sampling.multi_instance_sampler import run_sampler
from reference_model.sampling.solvers import Solver, make_solver
from reference_model.sampling.tokens import prepare_tokens
from reference_model.text import TextEmbedder
from reference_model.unet import InstanceUNet
from reference_model.unifusion import FORMATS, resolve_keep

__all__ = ["InstanceDiffusionPipeline", "InstanceDiffusionPipelineOutput", "SamplingParameters"]

logger = logging.getLogger(__name__)

StepEnd = Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor] | None]

_TOKEN_ROWS = 4  # prompts per UniFusion call: bounds the memory of the masks at segment size
_SEED_STRIDE = 1_000_003
_SEED_LIMIT = 2**63


@dataclass
class InstanceDiffusionPipelineOutput(BaseOutput):
    """What a call of the pipeline gives.

    Attributes:
        images: PIL images, or float32 [B, H, W, 3] in [0, 1] (``"np"``), or [B, C, h, w] latents.
        seeds: Seed of each image.
        unet_calls: UNet calls of the whole batch.
        unet_rows: Rows of those calls.
        truncated: Texts that the tokenizer's limit cut, with the part left out.
    """

    images: list[Image.Image] | NDArray[np.float32] | Tensor
    seeds: list[int]
    unet_calls: int
    unet_rows: int
    truncated: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Chains:
    """Global chains of the images first, then the instance chains of each image in order."""

    prompts: list[GroundedPrompt]
    images: list[int]

    @classmethod
    def of(cls, prompts: Sequence[GroundedPrompt], *, with_instances: bool) -> _Chains:
        chained, images = list(prompts), list(range(len(prompts)))
        if with_instances:
            for image, prompt in enumerate(prompts):
                alone = instance_prompts(prompt)
                chained += alone
                images += [image] * len(alone)
        return cls(chained, images)


class InstanceDiffusionPipeline(DiffusionPipeline):
    """InstanceDiffusion: text-to-image with a phrase and a location for every instance.

    Args:
        vae: Autoencoder of the latents.
        text_encoder: Text encoder of captions and phrases.
        tokenizer: Its tokenizer.
        unet: The denoiser.
        scheduler: Noise table, prediction type and solver. `PNDMScheduler` with ``skip_prk_steps`` stands for
            the published PLMS; every other diffusers scheduler runs its own steps.
        sampling_defaults: Recommended sampling settings of this checkpoint (fields of `SamplingParameters`),
            stored in ``model_index.json``.

    Raises:
        ValueError: If `sampling_defaults` names an unknown setting.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderDC,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: InstanceUNet,
        scheduler: SchedulerMixin,
        sampling_defaults: dict | None = None,  # the bare type: diffusers checks it with isinstance
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )
        defaults = dict(sampling_defaults or {})
        check_defaults(defaults)
        self.register_to_config(sampling_defaults=defaults)
        self.vae_scale_factor = _scale_factor(vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self._embedder: TextEmbedder | None = None
        self._bounds: dict[tuple[int, int], int] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any) -> Self:
        """Loads a pipeline folder as `save_pretrained` writes it.

        Diffusers only instantiates (or accepts) components of its own and transformers' classes, so the UNet
        is loaded here and put in its place.

        Args:
            pretrained_model_name_or_path: The folder.
            **kwargs: As in `DiffusionPipeline.from_pretrained`; ``dtype`` (or ``torch_dtype``) may be one type.

        Returns:
            The pipeline, in eval mode.

        Raises:
            ValueError: If pickled weights are asked for (``use_safetensors=False``).
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError("use_safetensors: pickled weights are not loaded; convert them to safetensors")
        unet = kwargs.pop("unet", None)
        if unet is None:
            shared = ("torch_dtype", "variant", "cache_dir", "local_files_only", "revision", "token")
            options = {name: kwargs[name] for name in shared if kwargs.get(name) is not None}
            if kwargs.get("dtype") is not None:
                options["torch_dtype"] = kwargs["dtype"]
            options["use_safetensors"] = True
            unet = InstanceUNet.from_pretrained(pretrained_model_name_or_path, subfolder="unet", **options)
        pipeline: Self = super().from_pretrained(pretrained_model_name_or_path, unet=None, **kwargs)
        pipeline.register_modules(unet=unet.eval())
        return pipeline

    @property
    def embedder(self) -> TextEmbedder:
        """Text embeddings with a cache of distinct strings."""
        held = self._embedder
        if held is None or (held.tokenizer, held.text_encoder) != (self.tokenizer, self.text_encoder):
            self._embedder = held = TextEmbedder(self.tokenizer, self.text_encoder)
        return held

    def resolve_sampling(self, **given: Any) -> SamplingParameters:
        """Fills settings that are None with the checkpoint's recommendation, else the published value.

        Args:
            **given: Fields of `SamplingParameters`.

        Returns:
            The settings.
        """
        return resolve_parameters(self.config.sampling_defaults, given)

    def _latent_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        own = self.unet.config.sample_size or 64
        rows, columns = (own, own) if isinstance(own, int) else own
        factor = self.vae_scale_factor
        height, width = height or rows * factor, width or columns * factor
        if height % factor or width % factor:
            raise ValueError(f"height, width: {height}x{width} are not multiples of {factor}; round them")
        return height // factor, width // factor

    def unet_batch(self, size: tuple[int, int], asked: int | None = None) -> int:
        """Most rows per UNet call: as asked or by latent size and device, and no more than fitted so far.

        Args:
            size: Rows and columns of the latent.
            asked: Bound of the caller; None chooses.

        Returns:
            The bound.
        """
        bound = asked or default_unet_batch(*size, self._execution_device)
        return min(bound, self._bounds.get(size, bound))

    def _groundings(
        self, chains: _Chains, keep: Sequence[str], size: tuple[int, int], mode: str | None, rows: int
    ) -> Iterator[dict[str, Any]]:
        """Grounding tensors of the chains, `rows` at a time."""
        device = self._execution_device

        def embed_phrase(phrases: list[str]) -> Tensor:
            return self.embedder(phrases, device)[1]

        for start in range(0, len(chains.prompts), rows):
            yield build_grounding(
                chains.prompts[start : start + rows],
                embed_phrase,
                self.unet.config,
                device,
                self.unet.dtype,
                keep=keep,
                size=size,
                masked_attention=mode,
            )

    def _run(
        self,
        prompts: Sequence[GroundedPrompt],
        noise: Tensor,
        generators: list[torch.Generator],
        solver: Solver,
        parameters: SamplingParameters,
        options: _Options,
        callback: Callable[[int, Any, Tensor], Tensor | None],
    ) -> tuple[Tensor, int, int]:
        """Latents of some images, the number of UNet calls and of their rows."""
        device, size = noise.device, (noise.shape[-2], noise.shape[-1])
        alphas = alpha_schedule(len(solver.timesteps), parameters.alpha)
        steps = mis_steps(len(solver.timesteps), parameters.mis)
        chains = _Chains.of(prompts, with_instances=steps > 0)
        images = torch.tensor(chains.images, device=device)
        negative = self.embedder([parameters.negative_prompt], device)[0].expand(len(prompts), -1, -1)
        shared: dict[str, Any] = {
            "context": self.embedder([prompt.caption for prompt in chains.prompts], device)[0],
            "negative_context": negative,
            "images": images,
            "guidance_scale": parameters.guidance_scale,
            "first_conv": options.first_conv,
        }
        mode, keep = options.masked_attention, options.keep
        limit = self.unet_batch(size, options.max_unet_batch)
        denoiser: PlainDenoiser | FastDenoiser
        if options.schedule == "plain":
            (table,) = self._groundings(chains, keep, size, mode, len(chains.prompts))
            denoiser = PlainDenoiser(self.unet, grounding=table, keep=keep, masked_attention=mode, **shared)
        else:
            # Without any grounded step there is nothing to compute tokens for.
            chunks = self._groundings(chains, keep, size, mode, _TOKEN_ROWS) if any(alphas) else ()
            tokens = prepare_tokens(
                self.unet, chunks, keep=keep, masked_attention=mode, size=size, device=device
            )
            denoiser = FastDenoiser(self.unet, grounding=tokens, max_unet_batch=limit, **shared)
        own = len(prompts)
        regions = None
        if options.mis_merge == "crop":
            shown = [chain.instances[0].keeping(keep) for chain in chains.prompts[own:]]
            regions = paste_regions(shown, self.unet.config, size).to(device)
        try:
            latents = run_sampler(
                denoiser,
                solver,
                noise,
                images,
                alphas=alphas,
                num_mis_steps=steps,
                regions=regions,
                generators=_chain_generators(generators, chains.images),
                callback=callback,
                sequential=options.schedule == "plain",
            )
        finally:
            if isinstance(denoiser, FastDenoiser) and denoiser.max_unet_batch < limit:
                self._bounds[size] = denoiser.max_unet_batch  # memory ran out; later calls start there
        return latents, denoiser.unet_calls, denoiser.unet_rows

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[GroundedPrompt] | GroundedPrompt,
        seeds: Sequence[int] | int | None = None,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        alpha: float | Sequence[float] | None = None,
        mis: float | None = None,
        mis_merge: Merge = "average",
        height: int | None = None,
        width: int | None = None,
        keep: Sequence[str] = FORMATS,
        masked_attention: str | None = None,
        first_conv: nn.Conv2d | Mapping[str, Tensor] | None = None,
        schedule: Literal["plain", "fast"] = "fast",
        max_unet_batch: int | None = None,
        output_type: Literal["pil", "np", "latent"] = "pil",
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> InstanceDiffusionPipelineOutput:
        """Draws one image per prompt; an image depends on its prompt and seed, not on its batch.

        Args:
            prompts: Captions with their instances; numbers and formats of instances may differ. One alone will do.
            seeds: One per prompt; initial noise is drawn from it on the CPU. None draws seeds at random.
            num_inference_steps: Sampler steps. None here and below takes the checkpoint's recommendation
                (``sampling_defaults``), else 50 / 7.5 / "" / 1.0 / 0.36.
            guidance_scale: Classifier-free guidance weight; 1 switches guidance off.
            negative_prompt: Prompt of the unconditional branch.
            alpha: Share of the steps with grounding on, or ``(full, decay, off)``.
            mis: Share of the steps run by the Multi-Instance Sampler, in [0, 1).
            mis_merge: ``"average"`` (published) or ``"crop"`` (crop-and-paste).
            height: Height in pixels; None takes the model's own.
            width: Width in pixels; None likewise.
            keep: Formats to keep; all others are withheld from tokens and masks.
            masked_attention: ``"none"``, ``"published"``, ``"correct"``; None takes the model's setting.
            first_conv: Weight and bias for the first convolution where alpha is 0.
            schedule: ``"fast"``, or ``"plain"``: images, branches and tokens one by one, as published.
            max_unet_batch: Most rows per UNet call; None chooses by latent size and device.
            output_type: ``"pil"``, ``"np"`` or ``"latent"``.
            callback_on_step_end: Called with (pipeline, step, timestep, {"latents": ...}) after each step of
                the global chains; may return other latents. With ``"plain"`` it is called image by image.
            callback_on_step_end_tensor_inputs: What the callback is given, as in diffusers: ``"latents"`` or nothing.

        Returns:
            Images, seeds, the number of UNet calls and the texts that were cut.

        Raises:
            ValueError: If a prompt or setting is invalid; the message names it.
        """
        prompts = [prompts] if isinstance(prompts, GroundedPrompt) else list(prompts)
        seeds = [seeds] if isinstance(seeds, int) else seeds
        for number, prompt in enumerate(prompts):
            if not isinstance(prompt, GroundedPrompt):
                raise ValueError(
                    f"prompt {number}: a {type(prompt).__name__}; wrap the caption and its instances in GroundedPrompt"
                )
            validate_prompt(prompt, self.unet.config.max_instances, name=f"prompt {number}")
        if seeds is not None and len(seeds) != len(prompts):
            raise ValueError(f"seeds: {len(seeds)} given for {len(prompts)} prompts; give one each")
        if schedule not in ("plain", "fast"):
            raise ValueError(f"schedule: {schedule!r} is unknown; choose from plain, fast")
        check_merge(mis_merge)
        if output_type not in ("pil", "np", "latent"):
            raise ValueError(f"output_type: {output_type!r} is unknown; choose from pil, np, latent")
        if set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: {list(callback_on_step_end_tensor_inputs)}; "
                f"choose from {', '.join(self._callback_tensor_inputs)}"
            )
        parameters = self.resolve_sampling(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            alpha=alpha,
            mis=mis,
        )
        options = _Options(
            resolve_keep(keep), masked_attention, mis_merge, schedule, max_unet_batch, first_conv
        )
        drawn = [int(seed) for seed in seeds] if seeds is not None else _random_seeds(len(prompts))
        size = self._latent_size(height, width)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in drawn]
        shape = (self.unet.config.in_channels, *size)
        device = self._execution_device
        latents = torch.empty(len(prompts), *shape, device=device)
        for row, generator in enumerate(generators):
            latents[row] = torch.randn(shape, generator=generator).to(device)
        solver = make_solver(self.scheduler, parameters.num_inference_steps, device)

        at_once = max(1, len(prompts)) if schedule == "fast" else 1
        parts = [slice(start, start + at_once) for start in range(0, len(prompts), at_once)]
        calls = rows = 0
        with self.progress_bar(total=len(solver.timesteps) * len(parts)) as bar:

            def on_step(step: int, timestep: Any, current: Tensor) -> Tensor | None:
                bar.update()
                if callback_on_step_end is None:
                    return None
                shown = {"latents": current} if callback_on_step_end_tensor_inputs else {}
                changed = callback_on_step_end(self, step, timestep, shown)
                return (changed or {}).get("latents")

            for part in parts:
                latents[part], more_calls, more_rows = self._run(
                    prompts[part], latents[part], generators[part], solver, parameters, options, on_step
                )
                calls, rows = calls + more_calls, rows + more_rows
        truncated = _cuts(self.embedder, prompts, parameters.negative_prompt)
        result = self._finish(latents, output_type)
        self.maybe_free_model_hooks()
        return InstanceDiffusionPipelineOutput(
            images=result, seeds=drawn, unet_calls=calls, unet_rows=rows, truncated=truncated
        )

    @torch.no_grad()
    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Encodes and decodes pictures, one at a time: what the autoencoder alone loses.

        Args:
            images: RGB pictures whose sides are multiples of the autoencoder's factor.

        Returns:
            The reconstructions, same sizes.
        """
        restored: list[Image.Image] = []
        for image in images:
            pixels = self.image_processor.preprocess(image).to(self._execution_device, self.vae.dtype)
            encoded = self.vae.encode(pixels)
            # AutoencoderKL gives a distribution, AutoencoderDC the latents themselves.
            latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
            decoded = self.vae.decode(latents).sample.float()
            restored.extend(self.image_processor.postprocess(decoded, output_type="pil"))
        return restored

    def _finish(self, latents: Tensor, output_type: str) -> Any:
        """Decodes latents, few images at a time."""
        if output_type == "latent":
            return latents
        scale = float(getattr(self.vae.config, "scaling_factor", None) or 1.0)
        shift = float(getattr(self.vae.config, "shift_factor", None) or 0.0)
        # About one 512x512 image at a time: the decoder needs far more memory per pixel than the UNet.
        step = max(1, 4096 // (latents.shape[-2] * latents.shape[-1]))
        decoded: list[Any] = []
        while len(decoded) < len(latents):
            part = latents[len(decoded) :][:step] / scale + shift
            try:
                pixels = self.vae.decode(part.to(self.vae.dtype)).sample.float()
            except Exception as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                step, pixels = len(part) // 2, None
            if pixels is None:
                release_memory()
                continue
            decoded.extend(self.image_processor.postprocess(pixels, output_type=output_type))
        return decoded if output_type == "pil" else np.asarray(decoded, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Options:
    """Settings of a call beside the sampling parameters."""

    keep: tuple[str, ...]
    masked_attention: str | None
    mis_merge: Merge
    schedule: str
    max_unet_batch: int | None
    first_conv: nn.Conv2d | Mapping[str, Tensor] | None


def _scale_factor(vae: Any) -> int:
    """Pixels per latent cell."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    if isinstance(ratio, int):
        return ratio
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _random_seeds(count: int) -> list[int]:
    return [int(value) for value in np.random.default_rng().integers(0, 2**31, size=count)]


def _chain_generators(generators: list[torch.Generator], images: Sequence[int]) -> list[torch.Generator]:
    """One generator per chain; those of instance chains depend on the image's seed and their number alone."""
    chained = list(generators)
    seen = dict.fromkeys(range(len(generators)), 0)
    for image in images[len(generators) :]:
        seen[image] += 1
        seed = (generators[image].initial_seed() * _SEED_STRIDE + seen[image]) % _SEED_LIMIT
        chained.append(torch.Generator("cpu").manual_seed(seed))
    return chained


def _cuts(embedder: TextEmbedder, prompts: Sequence[GroundedPrompt], negative: str) -> dict[str, str]:
    """Texts of this call that the tokenizer's limit cut."""
    texts = {negative}
    for prompt in prompts:
        texts.add(prompt.caption)
        texts.update(instance.phrase for instance in prompt.instances)
    return {text: embedder.cuts[text] for text in sorted(texts) if text in embedder.cuts}
