"""The reference model as a generator."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench import defaults
from instbench.devices import resolve_device
from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, SamplingSettings
from instbench.generators.checkpoint import (
    grounding_net,
    hash_files,
    pipeline_folder,
    read_index,
    recommended_sampling,
)
from instbench.generators.prediction import UnetWork, predict_unet_work
from instbench.layouts.types import Condition
from reference_model.parameters import resolve_parameters

if TYPE_CHECKING:
    from reference_model.grounding import GroundedPrompt
    from reference_model.pipeline import InstanceDiffusionPipeline

__all__ = ["InstanceDiffusionGenerator"]

logger = logging.getLogger(__name__)

_DTYPES = ("auto", "float32", "float16", "bfloat16")


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keeps the loaders' own progress bars and renaming notices out of ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()


class InstanceDiffusionGenerator:
    """InstanceDiffusion from a pipeline folder. The weights are loaded at the first image.

    Args:
        checkpoint: Pipeline folder; None takes the shipped Shapes weights.
        device: Torch device, or ``"auto"``: CUDA, then MPS, then the CPU.
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"``: float16 on CUDA, else float32.
        batch_size: Images per call of the pipeline; None chooses by canvas and device. It does not change the
            images.
        max_unet_batch: Most rows per UNet call; None chooses by latent size and device. Nor does this.

    Raises:
        InputError: If the folder is missing or holds something else, or the dtype is unknown.
    """

    kind = "instance-diffusion"
    conditions: frozenset[Condition] = frozenset(Condition)
    masked_attention: str | None = None
    """Mode of the instance masks; None takes the checkpoint's own."""

    def __init__(
        self,
        checkpoint: Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        max_unet_batch: int | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            raise InputError(f"--dtype {dtype}: unknown; choose from {', '.join(_DTYPES)}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"--batch-size {batch_size}: give at least 1")
        if max_unet_batch is not None and max_unet_batch < 1:
            raise InputError(f"max_unet_batch {max_unet_batch}: give at least 1")
        self.folder = self.find_folder(checkpoint)
        self._index = read_index(self.folder)
        self._device = device
        self._dtype = dtype
        self._batch_size = batch_size
        self.max_unet_batch = max_unet_batch

    def find_folder(self, checkpoint: Path | None) -> Path:
        """The folder of a checkpoint, or the shipped weights, checked.

        Raises:
            InputError: If it is missing or holds something else.
        """
        folder = pipeline_folder(checkpoint)
        if checkpoint is not None:
            grounding_net(folder, "unifusion")
        return folder

    @cached_property
    def pipeline(self) -> InstanceDiffusionPipeline:
        """The loaded pipeline."""
        import torch  # deferred: planning a run needs no torch

        from instbench.generators.pipelines import load_pipeline
        from reference_model.checkpoints.tensors import CheckpointError

        dtype: torch.dtype = getattr(torch, self._placement[1])
        try:
            with _quiet_loading():
                pipeline = load_pipeline(self.folder, dtype)
        except CheckpointError as error:
            raise InputError(f"{error}") from error
        except Exception as error:  # whatever a damaged folder makes the loaders raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.folder}: the checkpoint cannot be loaded ({reason})") from error
        pipeline.set_progress_bar_config(disable=True)
        logger.info("%s: loaded on %s as %s", self.folder, *self._placement)
        return pipeline.to(self._placement[0])

    @property
    def canvas_size(self) -> int:
        """Side in pixels of the square canvas that the checkpoint is made for."""
        pipeline = self.pipeline
        side = pipeline.unet.config.sample_size or 64
        return int(side if isinstance(side, int) else side[0]) * int(pipeline.vae_scale_factor)

    @cached_property
    def _placement(self) -> tuple[str, str]:
        """Device and dtype in use."""
        device = resolve_device(self._device, mps=True)
        dtype = self._dtype
        if dtype == "auto":
            dtype = "float16" if device.type == "cuda" else "float32"
        return str(device), dtype

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return hash_files(self.folder)

    def identity(self) -> Mapping[str, Any]:
        """Kind, type of the numbers and SHA-256 of every file of the checkpoint."""
        return {"kind": self.kind, "dtype": self._placement[1], "sha256": dict(self._hashes)}

    def resolve_sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """Fills gaps with the checkpoint's recommendation, else the published values.

        Raises:
            InputError: If the checkpoint recommends something unknown.
        """
        given = {
            "num_inference_steps": settings.num_inference_steps,
            "guidance_scale": settings.guidance_scale,
            "alpha": settings.alpha,
            "mis": settings.mis,
            "negative_prompt": settings.negative_prompt,
        }
        try:
            chosen = resolve_parameters(recommended_sampling(self._index), given)
        except ValueError as error:
            raise InputError(f"{self.folder / 'model_index.json'}: {error}") from None
        return SamplingSettings(
            num_inference_steps=chosen.num_inference_steps,
            guidance_scale=chosen.guidance_scale,
            # A schedule of three shares has no place in the settings; the pipeline reads it itself.
            alpha=chosen.alpha if isinstance(chosen.alpha, int | float) else None,
            mis=chosen.mis,
            negative_prompt=chosen.negative_prompt,
        )

    def shown(self, request: GenerationRequest) -> frozenset[Condition]:
        """The formats that the model sees for a request."""
        return request.conditions

    def prompt(self, request: GenerationRequest, slots: int) -> tuple[GroundedPrompt, int]:
        """What the model is asked for a request.

        Args:
            request: The request.
            slots: Instances that the model takes.

        Returns:
            The prompt, and the number of instances that found no slot.
        """
        from instbench.generators.prompts import to_prompt  # deferred: needs torch

        return to_prompt(request.layout, self.shown(request), slots)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one image per request, batch by batch.

        Raises:
            InputError: If a layout or setting cannot be drawn; the message names it.
        """
        for batch in self.batches(requests):
            yield from self._draw(batch)

    def batches(self, requests: Sequence[GenerationRequest]) -> Iterator[list[GenerationRequest]]:
        """The requests as they go to the pipeline: those of a batch agree on all but layout and seed."""
        groups: dict[Any, list[GenerationRequest]] = {}
        for request in requests:
            key = (request.canvas_size, request.conditions, request.sampling)
            groups.setdefault(key, []).append(request)
        for group in groups.values():
            size = self._batch_size or self._automatic_batch(group[0].canvas_size)
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def predict(self, requests: Sequence[GenerationRequest], images_per_call: int) -> UnetWork:
        """Counts the UNet calls of requests without loading the weights; see `predict_unet_work`."""
        return predict_unet_work(self, requests, images_per_call)

    @property
    def device(self) -> str:
        """The device in use."""
        return self._placement[0]

    def _automatic_batch(self, canvas_size: int) -> int:
        if self._placement[0].startswith("cuda"):
            return defaults.MOST_BATCH_SIZE
        return defaults.AUTO_BATCH_SIZE if canvas_size <= defaults.SMALL_CANVAS else 1

    def unet_rows_per_call(self, canvas_size: int) -> int:
        """Most rows per UNet call at a canvas, as far as memory allowed it up to now."""
        side = canvas_size // int(self.pipeline.vae_scale_factor)
        return self.pipeline.unet_batch((side, side), self.max_unet_batch)

    def _draw(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """One call of the pipeline for requests that agree on everything but layout and seed."""
        from reference_model.grounding import validate_prompt

        pipeline = self.pipeline
        slots = int(pipeline.unet.config.max_instances)
        shown = self.shown(requests[0])
        prompts: list[GroundedPrompt] = []
        dropped = []
        for request in requests:
            prompt, count = self.prompt(request, slots)
            try:
                validate_prompt(prompt, slots, name=request.layout.image_key)
            except ValueError as error:
                raise InputError(str(error)) from None
            prompts.append(prompt)
            dropped.append(count)
        settings = requests[0].sampling
        start = time.perf_counter()
        try:
            output = pipeline(
                prompts,
                [request.seed for request in requests],
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                alpha=settings.alpha,
                mis=settings.mis,
                negative_prompt=settings.negative_prompt,
                height=requests[0].canvas_size,
                width=requests[0].canvas_size,
                keep=tuple(sorted(shown)) or ("box",),
                masked_attention=self.masked_attention,
                max_unet_batch=self.max_unet_batch,
            )
        except ValueError as error:
            raise InputError(f"{self.folder.name}: {error}") from error
        seconds = (time.perf_counter() - start) / len(requests)
        for request, prompt, image, lost in zip(requests, prompts, output.images, dropped, strict=True):
            texts = {prompt.caption, *(instance.phrase for instance in prompt.instances)}
            yield GeneratedImage(
                image_key=request.layout.image_key,
                image=image,
                info={
                    "seconds": round(seconds, 4),
                    "unet_calls": round(output.unet_calls / len(requests), 6),
                    "unet_rows": round(output.unet_rows / len(requests), 6),
                    "dropped_instances": lost,
                    "truncated": {text: cut for text, cut in output.truncated.items() if text in texts},
                },
            )
