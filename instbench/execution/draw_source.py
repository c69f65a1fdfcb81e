"""What a drawing starts from: a layout file, an image of a run, or an earlier drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from instbench import defaults
from instbench.benchmarks.schema import Benchmark, SamplingSpec
from instbench.errors import InputError
from instbench.generators.base import SamplingSettings
from instbench.generators.variants import split_name
from instbench.layouts.handwritten import check_drawable, layout_from_object, load_json
from instbench.layouts.serialization import layout_from_json, read_jsonl
from instbench.layouts.types import Condition, Layout
from instbench.runs.mirror import opened
from instbench.runs.remote import is_url
from instbench.runs.store import RunFolder
from instbench.seeds import derive_seed

__all__ = ["DRAWING", "DrawSource", "from_file", "from_run"]

DRAWING = "drawing"
"""Value of ``kind`` in a draw.json."""
_SEED_NAME, _SEED_VERSION = "draw", 1  # a drawing's part in the hash that a benchmark's name has in a run's


@dataclass(frozen=True, slots=True)
class DrawSource:
    """A layout and what is settled about its picture.

    Attributes:
        layout: The layout, without instances that nobody asks for.
        origin: Where it came from, as JSON.
        seed_name: First part of the seed's hash: the benchmark's name, or the one of drawings.
        seed_version: Second part.
        seed: The user's seed.
        model: Name of the generator.
        checkpoint: Its checkpoint, None for the default.
        conditions: Formats to show; None means all that the layout has.
        canvas_size: Side of the canvas in pixels; None leaves it to the model.
        sampling: Settings; None leaves each to the model.
        generator: Identity of the generator that made the picture before, or None.
        picture: That picture as a PNG file, or None.
        picture_place: Where it is, for messages.
        images: Number of pictures, if the user asks for no other.
    """

    layout: Layout
    origin: Mapping[str, Any]
    seed_name: str = _SEED_NAME
    seed_version: int = _SEED_VERSION
    seed: int = defaults.SEED
    model: str = defaults.MODEL
    checkpoint: Path | None = None
    conditions: frozenset[Condition] | None = None
    canvas_size: int | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    generator: Mapping[str, Any] | None = None
    picture: bytes | None = None
    picture_place: str = ""
    images: int = 1

    def image_seed(self, number: int) -> int:
        """Seed of the noise of one picture, counted from 0; the first one of a run's image is the run's."""
        return derive_seed(
            self.seed_name, self.seed_version, self.layout.image_key, repeat=number, seed=self.seed
        )


def from_file(path: Path) -> DrawSource:
    """Starts from a file: a layout in one of the three forms, or the ``draw.json`` of an earlier drawing.

    Raises:
        InputError: If the file is bad; names file, field and fix.
    """
    data = load_json(path)
    try:
        if isinstance(data, Mapping) and data.get("kind") == DRAWING:
            return _from_drawing(data, path)
        return DrawSource(_asked(layout_from_object(data)), {"kind": "file", "name": path.name})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_run(address: str) -> DrawSource:
    """Starts from an image of a run, with the run's settings and that image's seed.

    Args:
        address: ``RUN/IMAGE``: the run folder, or its address for fsspec, and an image key of its ``layouts.jsonl``.
            The key is compared with those of the file and never used as a path; ``RUN/images/IMAGE.png`` will do too.

    Returns:
        The source.

    Raises:
        InputError: If there is no such run or image, or its records are damaged.
    """
    if not is_url(address):
        return _from_folder(address)
    where, _, key = address.rpartition("/")
    with opened(where.removesuffix("/images"), write=False) as place:
        source = _from_folder(f"{place.folder}/{key}")
        there = source.picture_place.replace(str(place.folder), str(place.address))
        return replace(source, picture_place=there)


def _from_folder(address: str) -> DrawSource:
    folder, key = Path(address).parent, Path(address).name.removesuffix(".png")
    if folder.name == "images" and not (folder / "run.json").exists():
        folder = folder.parent
    run = RunFolder(folder)
    record = run.read_run()
    layouts = {layout.image_key: layout for layout in read_jsonl(run.layouts_jsonl)}
    if key not in layouts:
        first = ", ".join(list(layouts)[:3]) or "none"
        raise InputError(f"--from {address}: {run.layouts_jsonl} has no image {key!r}; it has {first}, ...")
    try:
        benchmark = Benchmark.model_validate(record.benchmark)
        sampling = SamplingSpec.model_validate(record.identity.get("sampling"))
        seed = int(record.identity["seed"])
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{run.run_json}: cannot be read ({reason}); make the run again") from None
    layout = layouts[key]
    if benchmark.edition == "paper":
        from instbench.layouts.published import as_published

        layout = as_published(layout)
    try:
        picture = run.pictures.read(key)
    except FileNotFoundError:
        picture = None
    return DrawSource(
        layout=_asked(layout),
        origin={
            "kind": "run",
            "benchmark": benchmark.name,
            "edition": benchmark.edition,
            "image_key": key,
            "identity_sha256": record.identity_sha256,
        },
        seed_name=benchmark.name,
        seed_version=benchmark.version,
        seed=seed,
        model=split_name(record.model)[0],
        checkpoint=None if record.checkpoint is None else Path(record.checkpoint),
        conditions=frozenset(benchmark.conditions),
        canvas_size=benchmark.canvas_size,
        sampling=SamplingSettings(**sampling.model_dump()),
        generator=record.identity.get("generator"),
        picture=picture,
        picture_place=run.pictures.place(key),
    )


def _from_drawing(data: Mapping[str, Any], path: Path) -> DrawSource:
    if data.get("schema_version") != 1:
        raise InputError(
            f"schema_version: {data.get('schema_version')!r} is not supported; draw the layout again"
        )
    try:
        layout = check_drawable(layout_from_json(data.get("layout")))
    except InputError as error:
        raise InputError(f"layout.{error}") from None
    try:
        seeds = data["seeds"]
        source = DrawSource(
            layout=_asked(layout),
            origin={"kind": "drawing", "name": path.name, "before": data["origin"]},
            seed_name=str(seeds["name"]),
            seed_version=int(seeds["version"]),
            seed=int(seeds["seed"]),
            model=str(data["model"]),
            checkpoint=None if data["checkpoint"] is None else Path(str(data["checkpoint"])),
            conditions=frozenset(Condition(one) for one in data["conditions"]),
            canvas_size=int(data["canvas_size"]),
            sampling=SamplingSettings(**SamplingSpec.model_validate(data["sampling"]).model_dump()),
            generator=dict(data["generator"]),
            images=len(data["images"]),
        )
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"is no whole draw.json ({reason}); draw the layout again") from None
    return source


def _asked(layout: Layout) -> Layout:
    """The layout without ignored instances, so that numbers of instances are those that are drawn."""
    return replace(layout, instances=layout.requested)
