"""``python -m reference_model.benchmarking``: how much faster the fast schedule is, at which difference.

Both schedules draw the same layouts with the same random weights and noise, each in a process of its own, in
turns. The plain schedule takes one image after another, one branch per UNet call and the grounding tokens in
every call, as published; the fast one takes all images together.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reference_model.attention_masks import box_masks
from reference_model.sampling import alpha_schedule, plms_timesteps, sample
from reference_model.sampling.alpha import mis_steps
from reference_model.training.recipe import UNetRecipe, shapes_unet
from reference_model.unet import InstanceUNet

__all__ = ["CASES", "Case", "Measurement", "compare", "main", "measure"]

logger = logging.getLogger(__name__)

Schedule = Literal["plain", "fast"]
_TEXT_LENGTH = 77


@dataclass(frozen=True)
class Case:
    """What is drawn.

    Attributes:
        model: ``"shapes"`` (the recipe of the shipped weights) or ``"sd15"`` (the published sizes).
        instances: Instances of each layout.
        steps: Sampling steps.
        mis: Share of the Multi-Instance Sampler.
        alpha: Share of the steps with grounding on.
        latent_size: Side of the latents.
        latent_channels: Channels of the latents.
        width: Size of the text embeddings.
        seed: Root of weights, layouts and noise.
        threads: Threads of PyTorch; None leaves its choice.
        compiled: Compile the UNet of the fast schedule. A first run, which compiles, is not timed.

    Raises:
        ValueError: If a number is out of range.
    """

    model: Literal["shapes", "sd15"]
    instances: tuple[int, ...]
    steps: int
    mis: float
    alpha: float = 1.0
    latent_size: int = 16
    latent_channels: int = 8
    width: int = 128
    seed: int = 0
    threads: int | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        mis_steps(len(plms_timesteps(self.steps)), self.mis)
        alpha_schedule(self.steps, self.alpha)
        if not self.instances or min(self.instances) < 1:
            raise ValueError("layouts: give at least one, with at least one instance")


CASES: dict[str, Case] = {
    "shapes": Case("shapes", instances=(5, 4, 6, 5, 3, 7, 5, 5), steps=25, mis=0.36),
    # Two steps without MIS: every chain costs the same there, and sharing the first step would flatter.
    "sd15": Case("sd15", (5,), 2, 0.0, latent_size=64, latent_channels=4, width=768),
}
"""The sizes that are measured by default."""


@dataclass(frozen=True)
class Measurement:
    """One schedule on one case.

    Attributes:
        latents: float32 [images, C, h, w].
        cpu_seconds: Processor time of sampling over all threads, model building left out.
        wall_seconds: Elapsed time of the same.
        peak_mib: Largest resident memory of the process in MiB, weights and libraries included.
        unet_calls: Calls of the UNet.
    """

    latents: np.ndarray
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    unet_calls: int


def _unet(case: Case) -> InstanceUNet:
    """The network with random weights and open gates."""
    torch.manual_seed(case.seed)
    if case.model == "shapes":
        unet = shapes_unet(UNetRecipe(), case.latent_channels, case.latent_size, case.width)
    else:
        unet = InstanceUNet(sample_size=case.latent_size, in_channels=case.latent_channels)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if "alpha_" in name:
                    parameter.fill_(1.0)
    return unet.eval().requires_grad_(False)


def _grounding(
    unet: InstanceUNet, case: Case, counts: Sequence[int], gen: torch.Generator
) -> dict[str, Tensor]:
    """Random instances in the first slots, `counts` per row, with every format."""
    config = unet.config
    rows, slots = len(counts), int(config.max_instances)
    masks = (torch.arange(slots) < torch.tensor(counts)[:, None]).float()
    shown = masks[..., None]

    def rand(*shape: int) -> Tensor:
        return torch.rand((rows, slots, *shape), generator=gen)

    corner = rand(2) * 0.6
    boxes = torch.cat((corner, corner + 0.15 + rand(2) * 0.25), dim=-1) * shown
    side = int(config.segment_size)
    return {
        "boxes": boxes,
        "masks": masks,
        "points": (boxes[..., :2] + boxes[..., 2:]) / 2,
        "scribbles": rand(2 * int(config.num_scribble_points)) * shown,
        "polygons": rand(2 * int(config.num_mask_points)) * shown,
        "segs": box_masks(boxes, side, side).float(),
        "positive_embeddings": (rand(case.width) - 0.5) * shown,
        "instance_masks": box_masks(boxes, case.latent_size, case.latent_size),
    }


def _alone(grounding: dict[str, Tensor], slot: int) -> dict[str, Tensor]:
    """Each row's instance number `slot`, moved to slot 0."""
    moved = {name: torch.zeros_like(tensor) for name, tensor in grounding.items()}
    for name, tensor in grounding.items():
        moved[name][:, 0] = tensor[:, slot]
    return moved


@torch.no_grad()
def measure(case: Case, schedule: Schedule) -> Measurement:
    """Draws a case with one schedule.

    Args:
        case: The case.
        schedule: ``"plain"`` or ``"fast"``.

    Returns:
        Latents, times, memory and calls.
    """
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    unet = _unet(case)
    if case.compiled and schedule == "fast":
        unet.compile()
        _draw(case, schedule, unet)
    calls: list[int] = []
    unet.register_forward_pre_hook(lambda *_: calls.append(1))
    latents, cpu, wall = _draw(case, schedule, unet)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measurement(
        latents=latents.numpy(),
        cpu_seconds=cpu,
        wall_seconds=wall,
        peak_mib=peak / (2**20 if sys.platform == "darwin" else 2**10),
        unet_calls=len(calls),
    )


def _draw(case: Case, schedule: Schedule, unet: InstanceUNet) -> tuple[Tensor, float, float]:
    """Latents of a case, processor seconds and elapsed seconds of sampling."""
    gen = torch.Generator().manual_seed(case.seed)
    counts, total = case.instances, len(case.instances)
    grounding = _grounding(unet, case, counts, gen)
    noise = torch.randn(total, case.latent_channels, case.latent_size, case.latent_size, generator=gen)
    texts = torch.randn(total + max(counts) * total + 1, _TEXT_LENGTH, case.width, generator=gen)
    context, negative = texts[:total], texts[-1:]
    phrases = texts[total:-1].unflatten(0, (max(counts), total))

    together = list(range(total))
    parts = [together] if schedule == "fast" else [[image] for image in together]
    wall, cpu = time.perf_counter(), time.process_time()
    latents = []
    for part in parts:
        most = max(counts[image] for image in part)
        own = {name: tensor[part] for name, tensor in grounding.items()}
        drawn = sample(
            unet,
            noise[part],
            context[part],
            negative,
            own,
            instance_groundings=[_alone(own, slot) for slot in range(most)],
            instance_contexts=[phrases[slot][part] for slot in range(most)],
            instance_counts=[counts[image] for image in part],
            num_inference_steps=case.steps,
            alpha=case.alpha,
            mis=case.mis,
            schedule=schedule,
        )
        latents.append(drawn)
    return torch.cat(latents), time.process_time() - cpu, time.perf_counter() - wall


def _apart(case: Case, schedule: Schedule) -> Measurement:
    """`measure` in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(measure, case, schedule).result()


def compare(case: Case, repeats: int = 1, *, apart: bool = True) -> list[str]:
    """Measures both schedules in turns.

    Args:
        case: The case.
        repeats: Measurements of each schedule; the shortest times count.
        apart: Measure in fresh processes; without, the peak memory is that of this process.

    Returns:
        Lines of a report: times, ratios, memory and the largest difference of the latents, relative to their
        standard deviation.
    """
    run = _apart if apart else measure
    plain, fast = [], []
    for _ in range(repeats):
        plain.append(run(case, "plain"))
        fast.append(run(case, "fast"))
    slow_cpu, fast_cpu = (min(each.cpu_seconds for each in many) for many in (plain, fast))
    slow_wall, fast_wall = (min(each.wall_seconds for each in many) for many in (plain, fast))
    slow_peak, fast_peak = (max(each.peak_mib for each in many) for many in (plain, fast))
    difference = np.abs(plain[0].latents - fast[0].latents).max() / plain[0].latents.std()
    lines = [
        f"{case.model}: {len(case.instances)} layouts, {sum(case.instances)} instances, {case.steps} steps, "
        f"MIS {case.mis:g}, alpha {case.alpha:g}, {case.threads or torch.get_num_threads()} threads"
        + (", fast compiled" if case.compiled else ""),
        f"{'':14s}{'plain':>10s}{'fast':>10s}{'ratio':>8s}",
    ]
    for name, slow, quick in (
        ("CPU s", slow_cpu, fast_cpu),
        ("wall s", slow_wall, fast_wall),
        ("UNet calls", plain[0].unet_calls, fast[0].unet_calls),
    ):
        lines.append(f"{name:14s}{slow:10.1f}{quick:10.1f}{slow / quick:7.2f}x")
    lines.append(f"{'peak MiB':14s}{slow_peak:10.0f}{fast_peak:10.0f}{fast_peak / slow_peak:7.2f}x of plain")
    lines.append(f"largest difference of the latents: {difference:.1e} of their standard deviation")
    return lines


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reference_model.benchmarking", description=__doc__)
    parser.add_argument("case", nargs="*", help="shapes, sd15 (minutes, 8 GB of memory); default: both")
    parser.add_argument("--layouts", type=int, help="only the first layouts")
    parser.add_argument("--steps", type=int, help="sampling steps")
    parser.add_argument("--mis", type=float, help="share of the Multi-Instance Sampler")
    parser.add_argument("--alpha", type=float, help="share of the steps with grounding on")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    parser.add_argument(
        "--compiled", action="store_true", help="compile the UNet of the fast schedule (minutes)"
    )
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each schedule")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report of the asked cases to the standard output.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        Exit code: 0 done, 2 bad input.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parse(argv)
    names = options.case or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        logger.error("unknown case %r (cases: %s)", unknown[0], ", ".join(CASES))
        return 2
    changes: dict[str, Any] = {
        name: value
        for name in ("steps", "mis", "alpha", "threads")
        if (value := getattr(options, name)) is not None
    }
    try:
        cases = [
            replace(
                CASES[name],
                **changes,
                compiled=options.compiled,
                instances=CASES[name].instances[: options.layouts],
            )
            for name in names
        ]
    except ValueError as error:
        logger.error("%s", error)
        return 2
    for case in cases:
        lines = compare(case, max(1, options.repeats))
        sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
