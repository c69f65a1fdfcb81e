"""The demonstration: floor, baseline, reference model and ceiling on a small slice of every benchmark."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from instbench import api, defaults
from instbench.benchmarks import load_benchmark
from instbench.evaluators.base import Detections
from instbench.execution.layouts import checked_layouts
from instbench.execution.session import Session
from instbench.runs.atomic import atomic_path
from instbench.runs.records import ResultsRecord
from instbench.runs.store import RunFolder

__all__ = ["CEILING", "COLUMNS", "DEMO_BENCHMARKS", "DemoRun", "run_demo", "write_pages"]

logger = logging.getLogger(__name__)

DEMO_BENCHMARKS = (
    "shapes-box",
    "shapes-mask",
    "shapes-point",
    "shapes-scribble",
    "shapes-color",
    "shapes-texture",
)
CEILING = "real images (ceiling)"
COLUMNS = {
    "text only (floor)": "text-only",
    "GLIGEN-style": "gligen",
    "reference": "reference",
    CEILING: "real-images",
}
REPORTED = ("reference", "shapes-box")
"""Model and benchmark of the run that gets a report."""
_OVERLAYS_PER_RUN = 2


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One finished run of the demonstration.

    Attributes:
        column: Heading in the table.
        benchmark: Benchmark name.
        folder: The run folder.
        results: The numbers.
        overlays: Pictures of what was asked and found.
        seconds: Seconds of all stages.
    """

    column: str
    benchmark: str
    folder: Path
    results: ResultsRecord
    overlays: tuple[Path, ...]
    seconds: float


def run_demo(
    output: Path,
    *,
    limit: int = defaults.DEMO_LIMIT,
    fresh: bool = False,
    session: Session | None = None,
) -> Iterator[DemoRun]:
    """Runs the demonstration; a second call in the same folder continues.

    Args:
        output: Folder for the runs.
        limit: Layouts per benchmark.
        fresh: Delete the runs that are in the folder first.
        session: Loaded networks.

    Yields:
        Each run as it is done.
    """
    session = session or Session()
    for column, model in COLUMNS.items():
        benchmarks: Sequence[str] = ("shapes-real",) if column == CEILING else DEMO_BENCHMARKS
        for benchmark in benchmarks:
            folder = output / model / benchmark
            folder.parent.mkdir(parents=True, exist_ok=True)
            [outcome] = api.run(benchmark, folder, model=model, limit=limit, fresh=fresh, session=session)
            if outcome.results is None:
                raise RuntimeError(f"{folder}: no results")
            overlays = draw_overlays(folder, benchmark, limit) if model == "reference" else ()
            seconds = sum(RunFolder(folder).read_run().timings.values())
            yield DemoRun(column, benchmark, folder, outcome.results, overlays, seconds)


def write_pages(output: Path, runs: Sequence[DemoRun]) -> tuple[Path, ...]:
    """Writes a report of one run and a leaderboard of all.

    Args:
        output: Folder of the demonstration.
        runs: Its runs.

    Returns:
        The pages.
    """
    from instbench.reports.html import build_report
    from leaderboards.site import build_site

    reported = output.joinpath(*REPORTED)
    pages = [build_report(run.folder) for run in runs if run.folder == reported]
    return (*pages, build_site([run.folder for run in runs], output / "leaderboard"))


def draw_overlays(folder: Path, benchmark: str, limit: int) -> tuple[Path, ...]:
    """Draws what was asked and found for the first images of a run; returns the paths."""
    from instbench.execution.observe import read_detections
    from instbench.layouts import restrict
    from instbench.layouts.drawing import asked_and_found

    run = RunFolder(folder)
    run.overlays.mkdir(exist_ok=True)
    found: dict[str, Detections] = read_detections(run)
    paths = []
    protocol = load_benchmark(benchmark)
    for layout in checked_layouts(protocol, limit)[:_OVERLAYS_PER_RUN]:
        # Only what the model was shown belongs under "asked".
        asked = restrict(layout, frozenset(protocol.conditions))
        if layout.image_key in found:
            image = run.pictures.open(layout.image_key)
            picture = asked_and_found(image, asked, found[layout.image_key])
            path = run.overlays / f"{layout.image_key}.png"
            with atomic_path(path) as temporary:
                picture.save(temporary)
            paths.append(path)
    return tuple(paths)
