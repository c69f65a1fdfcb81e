"""``python -m reference_model.costs``: rows through the UNet, seconds and memory per image, and a line through them.

Layouts of random boxes are drawn with the shipped Shapes weights for several numbers of instances, sampling steps
and shares of the Multi-Instance Sampler. Each pair of instances and share has a process of its own, whose peak memory
is its own too.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Cost", "Line", "fit_line", "main", "measure", "rows_per_image", "table"]

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights" / "shapes"


@dataclass(frozen=True, slots=True)
class Cost:
    """What an image takes.

    Attributes:
        instances: Instances of the layout.
        mis: Share of the steps run by the Multi-Instance Sampler.
        steps: Sampling steps.
        rows: Rows through the UNet per image.
        calls: UNet calls of the measured batch.
        wall_seconds: Elapsed seconds per image, texts, tokens and decoder included.
        cpu_seconds: Processor seconds per image over all threads.
        peak_mib: Largest resident memory of the process up to then, weights and libraries included.
    """

    instances: int
    mis: float
    steps: int
    rows: float
    calls: int
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds per image as ``fixed + per_row * rows``.

    Attributes:
        fixed: Seconds that an image takes whatever is sampled.
        per_row: Seconds per row through the UNet.
        worst: Largest relative error at the measured points.
    """

    fixed: float
    per_row: float
    worst: float


def rows_per_image(instances: int, steps: int, mis: float, *, guided: bool = True) -> int:
    """Rows through the UNet per image with PLMS, where grounding is on or the first convolution is not replaced.

    The first step of every chain takes two evaluations. In the very first one all chains of an image share
    their unconditional row.

    Args:
        instances: Instances that the model is shown.
        steps: Sampling steps that the solver takes.
        mis: Share of the steps run by the Multi-Instance Sampler.
        guided: Whether guidance is on.

    Returns:
        ``g (T + 1) + N (g k + 1)`` with k = int(mis T) steps of the Multi-Instance Sampler and g = 2 rows per
        evaluation; without guidance g = 1; without such steps the second part is 0.
    """
    chained = int(steps * mis)
    branches = 2 if guided else 1
    own = branches * (steps + 1)
    return own + (instances * (branches * chained + 1) if chained else 0)


def measure(
    instances: int, mis: float, steps: Iterable[int], images: int = 2, folder: Path = WEIGHTS
) -> list[Cost]:
    """Draws layouts of random boxes.

    Args:
        instances: Instances of each layout.
        mis: Share of the Multi-Instance Sampler.
        steps: Numbers of sampling steps to try.
        images: Images in a batch.
        folder: Pipeline folder.

    Returns:
        The costs, one per number of steps.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from reference_model.grounding import GroundedInstance, GroundedPrompt
    from reference_model.pipeline import InstanceDiffusionPipeline

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    pipeline = InstanceDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    random = np.random.default_rng(0)

    def box() -> tuple[float, float, float, float]:
        x, y = random.uniform(0.0, 0.6, size=2).tolist()
        return (x, y, x + 0.3, y + 0.3)

    prompts = [
        GroundedPrompt(
            "a picture of shapes",
            tuple(GroundedInstance("red circle", box_xyxy=box()) for _ in range(instances)),
        )
        for _ in range(images)
    ]
    seeds = list(range(images))
    pipeline(
        prompts, seeds, num_inference_steps=2, mis=0.0
    )  # what happens once per process is not an image's
    costs = []
    for number in steps:
        wall, cpu = time.perf_counter(), time.process_time()
        drawn = pipeline(prompts, seeds, num_inference_steps=number, mis=mis)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        costs.append(
            Cost(
                instances=instances,
                mis=mis,
                steps=number,
                rows=drawn.unet_rows / images,
                calls=drawn.unet_calls,
                wall_seconds=wall / images,
                cpu_seconds=cpu / images,
                peak_mib=peak / (2**20 if sys.platform == "darwin" else 2**10),
            )
        )
    return costs


def fit_line(costs: Sequence[Cost]) -> Line:
    """The line through processor seconds per image over rows, least squares of the relative errors.

    Args:
        costs: At least two with different rows.

    Returns:
        The line.
    """
    rows = np.array([cost.rows for cost in costs])
    seconds = np.array([cost.cpu_seconds for cost in costs])
    design = np.stack([1 / seconds, rows / seconds], axis=1)
    (fixed, per_row), *_ = np.linalg.lstsq(design, np.ones(len(costs)), rcond=None)
    worst = np.abs(fixed + per_row * rows - seconds) / seconds
    return Line(float(fixed), float(per_row), float(worst.max()))


def table(costs: Sequence[Cost]) -> list[str]:
    """The costs as a Markdown table, and the line through them."""
    lines = [
        "| instances | MIS share | steps | UNet rows | CPU s | elapsed s | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.instances} | {one.mis:g} | {one.steps} | {one.rows:g} | {one.cpu_seconds:.2f} | "
        f"{one.wall_seconds:.2f} | {one.peak_mib:.0f} |"
        for one in costs
    ]
    line = fit_line(costs)
    lines.append("")
    lines.append(
        f"CPU seconds per image = {line.fixed:.3f} + {line.per_row:.4f} x rows, off by at most {line.worst:.0%}"
    )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the table to the standard output.

    Args:
        argv: Arguments; None takes the process's own.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m reference_model.costs", description=__doc__)
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--mis", type=float, nargs="+", default=[0.0, 0.36])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--images", type=int, default=2, help="images in a batch (default: 2)")
    options = parser.parse_args(argv)
    if min([*options.instances, *options.steps, options.images]) < 1:
        parser.error("--instances, --steps, --images: give 1 or more")
    if not all(0 <= share < 1 for share in options.mis):
        parser.error("--mis: give shares from 0 to below 1")
    costs: list[Cost] = []
    context = multiprocessing.get_context("spawn")
    for share in options.mis:
        for count in options.instances:
            with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
                costs += pool.submit(measure, count, share, options.steps, options.images).result()
            logger.info("%d instances, MIS %g: done", count, share)
    sys.stdout.write("\n".join(table(costs)) + "\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    raise SystemExit(main())
