"""What a generator of the reference model's kind will do for some requests, without loading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instbench.errors import InputError
from instbench.generators.base import GenerationRequest
from instbench.generators.checkpoint import check_schedule, read_config, read_index, recommended_sampling

if TYPE_CHECKING:
    from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
    from reference_model.sampling.counting import CallCounter

__all__ = ["UnetWork", "latent_side", "predict_unet_work"]

_SLOTS = 30  # of a model whose configuration names none


@dataclass(frozen=True, slots=True)
class UnetWork:
    """What is asked of the UNet.

    Attributes:
        calls: Calls, if no call runs out of memory.
        rows: Rows of those calls; what they depend on is in the requests alone.
    """

    calls: int
    rows: int


def latent_side(folder: Path, canvas_size: int) -> int:
    """Side of the latents of a pipeline folder.

    Args:
        folder: The folder.
        canvas_size: Side of the images in pixels.

    Returns:
        Cells along a side.
    """
    config = read_config(folder, "vae/config.json")
    blocks = config.get("block_out_channels") or config.get("encoder_block_out_channels") or [0] * 4
    side: int = canvas_size // 2 ** (len(blocks) - 1)
    return side


def predict_unet_work(
    generator: InstanceDiffusionGenerator, requests: Sequence[GenerationRequest], images_per_call: int
) -> UnetWork:
    """Counts UNet calls by running the sampler with a UNet that only counts.

    Args:
        generator: The generator.
        requests: What it will be asked.
        images_per_call: How many at a time.

    Returns:
        The calls and their rows.

    Raises:
        InputError: If the checkpoint or a setting does not fit.
    """
    slots = int(read_config(generator.folder, "unet/config.json").get("max_instances", _SLOTS))
    counters: dict[Any, CallCounter] = {}
    calls = rows = 0
    for start in range(0, len(requests), images_per_call):
        for batch in generator.batches(requests[start : start + images_per_call]):
            key = (batch[0].canvas_size, batch[0].sampling)
            if key not in counters:
                counters[key] = _counter(generator, batch[0])
            shown = [len(generator.prompt(request, slots)[0].instances) for request in batch]
            count = counters[key].count(shown)
            calls, rows = calls + count.calls, rows + count.rows
    return UnetWork(calls, rows)


def _counter(generator: InstanceDiffusionGenerator, request: GenerationRequest) -> CallCounter:
    import diffusers

    from reference_model.parameters import resolve_parameters
    from reference_model.sampling.counting import CallCounter
    from reference_model.sampling.denoiser import default_unet_batch

    folder, index = generator.folder, read_index(generator.folder)
    check_schedule(folder)
    sampling = request.sampling
    given = {
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "alpha": sampling.alpha,
        "mis": sampling.mis,
        "negative_prompt": sampling.negative_prompt,
    }
    side = latent_side(folder, request.canvas_size)
    bound = generator.max_unet_batch or default_unet_batch(side, side, generator.device)
    try:
        kind = getattr(diffusers, str(index.get("scheduler", ("", ""))[1]))
        scheduler = kind.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        return CallCounter(scheduler, resolve_parameters(recommended_sampling(index), given), bound)
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: UNet calls cannot be counted ({reason})") from error
