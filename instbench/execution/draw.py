"""Draws one layout: pictures, overlays of what was asked, and what it takes to make them again."""

from __future__ import annotations

import io
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError

from instbench import defaults
from instbench._version import __version__
from instbench.benchmarks.schema import SamplingSpec
from instbench.errors import InputError
from instbench.execution.draw_changes import Changes, changes_sheet, measure_changes
from instbench.execution.draw_source import DRAWING, DrawSource
from instbench.execution.session import Session
from instbench.generators.base import GeneratedImage, GenerationRequest, Generator, SamplingSettings
from instbench.generators.variants import with_variant
from instbench.layouts import restrict
from instbench.layouts.drawing import draw_layout
from instbench.layouts.editing import Edit, EditedLayout, apply_edits
from instbench.layouts.serialization import layout_to_json
from instbench.layouts.types import Condition, Instance, Layout
from instbench.registry import READY_MADE, check_generator
from instbench.runs.atomic import TEMPORARY_PREFIX, sha256_bytes, write_bytes, write_json

__all__ = ["MAX_IMAGES", "DrawSettings", "DrawnImage", "Drawing", "draw", "formats_of"]

logger = logging.getLogger(__name__)

MAX_IMAGES = 256
"""Pictures of one call; they are held in memory until all are made."""

_MAX_CANVAS = 2048
_OURS = re.compile(r"layout\.json|layout-before\.json|draw\.json|\d{4}(-asked|-before|-changes)?\.png")


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """What the user asks for; None takes it from the source, then from the model.

    Attributes:
        images: Number of pictures, each from its own noise.
        seed: The user's seed.
        model: Name of the generator.
        checkpoint: Its checkpoint.
        conditions: Formats to show.
        canvas_size: Side of the canvas in pixels.
        sampling: Sampling settings.
    """

    images: int | None = None
    seed: int | None = None
    model: str | None = None
    checkpoint: Path | None = None
    conditions: frozenset[Condition] | None = None
    canvas_size: int | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """One picture.

    Attributes:
        name: File name in the folder.
        seed: Seed of its noise.
        image: The picture.
        info: Facts from the generator.
    """

    name: str
    seed: int
    image: Image.Image
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What was made.

    Attributes:
        folder: Where the files are.
        layout: The layout that was drawn.
        shown: What the model saw of it.
        images: The pictures.
        record: Content of draw.json.
        changes: What edits changed, None without edits.
    """

    folder: Path
    layout: Layout
    shown: Layout
    images: tuple[DrawnImage, ...]
    record: Mapping[str, Any]
    changes: Changes | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    source: DrawSource
    edited: EditedLayout
    model: str
    checkpoint: Path | None
    generator: Generator
    conditions: frozenset[Condition]
    canvas_size: int
    sampling: SamplingSettings
    images: int

    def requests(self, layout: Layout) -> list[GenerationRequest]:
        """One request per picture; equal layouts and noise make equal pictures."""
        shown = restrict(layout, self.conditions)
        return [
            GenerationRequest(
                layout=shown if number == 0 else replace(shown, image_key=f"{shown.image_key}-{number + 1}"),
                conditions=self.conditions,
                seed=self.source.image_seed(number),
                canvas_size=self.canvas_size,
                sampling=self.sampling,
            )
            for number in range(self.images)
        ]


def formats_of(layout: Layout) -> frozenset[Condition]:
    """Location formats that at least one instance of a layout has."""
    return frozenset(one for instance in layout.instances for one in Condition if _has(instance, one))


def draw(
    source: DrawSource,
    output: Path,
    session: Session,
    settings: DrawSettings | None = None,
    edits: Sequence[Edit] = (),
) -> Drawing:
    """Draws a layout into a folder; with edits, before and after them from the same noise.

    Args:
        source: The layout and what is settled about it.
        output: Folder for the files: a new or empty one, or one that an earlier call made.
        session: Loads the model.
        settings: What the user asks for.
        edits: Edits of the layout.

    Returns:
        What was made; ``NNNN.png``, ``NNNN-asked.png``, ``layout.json`` and ``draw.json`` are in the folder,
        with edits also ``NNNN-before.png``, ``NNNN-changes.png`` and ``layout-before.json``.

    Raises:
        InputError: If the folder holds other files, the model cannot be shown the layout, or a setting is wrong.
        OSError: If the folder cannot be written.
    """
    settings = settings or DrawSettings()
    _check_folder(output)
    plan = _make_plan(source, session, settings, edits)
    edited = plan.edited
    # Two calls of the generator with batches alike: what was not asked to change is rounded alike.
    before = _generate(plan, edited.before) if edited.edits else ()
    images = _generate(plan, edited.after)
    shown = restrict(edited.after, plan.conditions)
    files: dict[str, bytes] = {}
    for drawn in images:
        files[drawn.name] = _png(drawn.image)
        files[f"{Path(drawn.name).stem}-asked.png"] = _png(draw_layout(drawn.image, shown))
    documents = {"layout.json": layout_to_json(edited.after)}
    record = _record(plan, images, files)
    changes = None
    if edited.edits:
        documents["layout-before.json"] = layout_to_json(edited.before)
        changes = measure_changes([one.image for one in before], [one.image for one in images], edited)
        for old, new in zip(before, images, strict=True):
            stem = Path(new.name).stem
            files[f"{stem}-before.png"] = _png(old.image)
            files[f"{stem}-changes.png"] = _png(changes_sheet(old.image, new.image, edited))
        record["edits"] = [edit.source for edit in edited.edits]
        record["layout_before"] = documents["layout-before.json"]
        record["changes"] = changes.to_json()
    _write(output, files, documents, record)
    return Drawing(output, edited.after, shown, images, record, changes)


# -- plan


def _make_plan(source: DrawSource, session: Session, settings: DrawSettings, edits: Sequence[Edit]) -> _Plan:
    images = source.images if settings.images is None else settings.images
    if not 1 <= images <= MAX_IMAGES:
        raise InputError(f"--images {images}: give 1 to {MAX_IMAGES}")
    if settings.seed is not None:
        source = replace(source, seed=settings.seed)
    model = settings.model or source.model
    # Another model has other weights: the checkpoint of the source goes with the source's model alone.
    checkpoint = settings.checkpoint or (source.checkpoint if model == source.model else None)
    if model in READY_MADE:
        raise InputError(
            f"model {model!r} makes no picture of a layout; give --model {defaults.MODEL} or another"
        )
    check_generator(model, checkpoint)
    sampling = _sampling(source.sampling if model == source.model else SamplingSettings(), settings.sampling)
    generator = session.generator(model, checkpoint)
    if settings.model is None:  # a model that is asked for by name is meant as it is
        generator = with_variant(generator, source.generator)
    conditions = settings.conditions if settings.conditions is not None else source.conditions
    if conditions is None:
        conditions = formats_of(source.layout) or frozenset({Condition.BOX} if edits else ())
    edited = apply_edits(source.layout, edits, conditions)
    for layout in dict.fromkeys((edited.before, edited.after)):
        _check_conditions(layout, conditions, generator, model)
    size = settings.canvas_size or source.canvas_size or getattr(generator, "canvas_size", None)
    size = int(size or defaults.CANVAS_SIZE)
    if not 8 <= size <= _MAX_CANVAS:
        raise InputError(f"--size {size}: give 8 to {_MAX_CANVAS} pixels")
    sampling = generator.resolve_sampling(sampling)
    plan = _Plan(source, edited, model, checkpoint, generator, conditions, size, sampling, images)
    if source.generator is not None and dict(source.generator) != dict(generator.identity()):
        logger.warning(
            "the model or its weights differ from those that made the picture before; it will look different"
        )
    return plan


def _sampling(known: SamplingSettings, asked: SamplingSettings) -> SamplingSettings:
    merged = {
        name: value if value is not None else getattr(known, name) for name, value in asdict(asked).items()
    }
    try:
        return SamplingSettings(**SamplingSpec.model_validate(merged).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InputError(f"--{name.replace('_', '-')} {merged[name]}: {first['msg']}") from None


def _check_conditions(
    layout: Layout, conditions: frozenset[Condition], generator: Generator, model: str
) -> None:
    """Refuses what the model cannot honour, before anything is loaded."""
    missing = sorted(conditions - frozenset(generator.conditions))
    if missing:
        able = ",".join(sorted(generator.conditions)) or "none"
        raise InputError(f"model {model!r} cannot be shown {', '.join(missing)}; add --conditions {able}")
    absent = sorted(conditions - formats_of(layout)) if layout.instances else []
    if absent and len(absent) == len(conditions):
        raise InputError(
            f"--conditions {','.join(absent)}: no instance has one; the layout has {_listed(formats_of(layout))}"
        )
    for number, instance in enumerate(layout.instances):
        if conditions and not any(_has(instance, one) for one in conditions):
            raise InputError(
                f"instances.{number}: has no {' or '.join(sorted(conditions))}, and the model would be shown "
                "no other; give one, or change --conditions"
            )


def _has(instance: Instance, condition: Condition) -> bool:
    if instance.condition not in (None, condition):
        return False
    values = {
        Condition.BOX: instance.box_xyxy,
        Condition.MASK: instance.mask,
        Condition.POINT: instance.point_xy,
        Condition.SCRIBBLE: instance.scribble_xy,
    }
    return values[condition] is not None


def _listed(conditions: Iterable[Condition]) -> str:
    return ", ".join(sorted(conditions)) or "none"


# -- pictures


def _generate(plan: _Plan, layout: Layout) -> tuple[DrawnImage, ...]:
    requests = plan.requests(layout)
    made: dict[str, GeneratedImage] = {one.image_key: one for one in plan.generator.generate(requests)}
    images = []
    for number, request in enumerate(requests):
        answer = made.get(request.layout.image_key)
        if answer is None or answer.image.size != (plan.canvas_size, plan.canvas_size):
            raise InputError(
                f"model {plan.model!r}: made no {plan.canvas_size}x{plan.canvas_size} picture; check the model"
            )
        images.append(
            DrawnImage(f"{number + 1:04d}.png", request.seed, answer.image.convert("RGB"), dict(answer.info))
        )
    return tuple(images)


# -- files


def _record(plan: _Plan, images: Sequence[DrawnImage], files: Mapping[str, bytes]) -> dict[str, Any]:
    source = plan.source
    return {
        "schema_version": 1,
        "kind": DRAWING,
        "code_version": __version__,
        "origin": dict(source.origin),
        "model": plan.model,
        "checkpoint": None if plan.checkpoint is None else str(plan.checkpoint),
        "generator": dict(plan.generator.identity()),
        "conditions": sorted(plan.conditions),
        "canvas_size": plan.canvas_size,
        "sampling": asdict(plan.sampling),
        "seeds": {"name": source.seed_name, "version": source.seed_version, "seed": source.seed},
        "layout": layout_to_json(plan.edited.after),
        "images": [
            {
                "file": one.name,
                "seed": one.seed,
                "sha256": sha256_bytes(files[one.name]),
                # Times are left out: equal drawings give equal files.
                "info": {name: value for name, value in one.info.items() if name != "seconds"},
            }
            for one in images
        ],
    }


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG", compress_level=defaults.PNG_LEVEL)
    return stream.getvalue()


def _check_folder(folder: Path) -> None:
    """Refuses a folder with files of others; one with a draw.json is ours, strangers in it stay as they are."""
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"{folder}: is a link to nothing; choose another -o")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder; choose another -o")
    if not folder.is_dir() or _is_drawing(folder):
        return
    strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
    if strangers:
        raise InputError(
            f"{folder}: holds files that are no drawing ({', '.join(strangers[:3])}); choose another -o"
        )


def _is_drawing(folder: Path) -> bool:
    from instbench.layouts.handwritten import load_json

    try:
        data = load_json(folder / "draw.json")
    except InputError:
        return False
    return isinstance(data, dict) and data.get("kind") == DRAWING


def _write(
    folder: Path, files: Mapping[str, bytes], documents: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    """Writes a drawing: a new folder appears whole; in an old one draw.json, with its sums, goes last."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder.parent))
        try:
            _write_into(staged, files, documents, record)
            staged.chmod(0o755)
            staged.rename(folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return
    _write_into(folder, files, documents, record)
    kept = {*files, *documents, "draw.json"}
    for path in folder.iterdir():
        if path.is_file() and path.name not in kept and _OURS.fullmatch(path.name):
            path.unlink()


def _write_into(
    folder: Path, files: Mapping[str, bytes], documents: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    for name, data in files.items():
        write_bytes(folder / name, data)
    for name, document in documents.items():
        write_json(folder / name, document)
    write_json(folder / "draw.json", record)
