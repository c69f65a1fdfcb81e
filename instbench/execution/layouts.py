"""The layouts of a benchmark: made from its data, hashed, checked against the frozen checksum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from instbench.benchmarks.schema import Benchmark, CocoData, NamedData, ShapesData
from instbench.errors import InputError
from instbench.layouts.types import Layout
from instbench.registry import did_you_mean
from instbench.runs.atomic import canonical_json, sha256_bytes, sha256_file

__all__ = ["checked_layouts", "dataset_identity", "layouts_sha256", "make_layouts", "source_names"]


def make_layouts(benchmark: Benchmark, limit: int | None = None) -> tuple[Layout, ...]:
    """Makes the layouts of a benchmark, in order.

    Args:
        benchmark: The benchmark; all its formats are filled in, nothing is withheld yet.
        limit: Spares the work for layouts of a file beyond the first so many, where it can.

    Returns:
        The layouts. Results for the built-in worlds are kept for the life of the process.

    Raises:
        InputError: If the data is missing or wrong.
    """
    data = benchmark.dataset
    if isinstance(data, ShapesData):
        rules = (benchmark.edition, benchmark.attribute, benchmark.prompt, benchmark.square_source)
        layouts = _shapes_layouts(data, *rules)
    elif isinstance(data, NamedData):
        layouts = _coco_layouts(named_files(data), benchmark, limit, data.name)
    else:
        layouts = _coco_layouts(data, benchmark, limit, "custom")
    if benchmark.hybrid:
        from instbench.layouts.hybrid import assign_formats

        name = benchmark.name.removesuffix("@custom")  # the same mix on other data
        return tuple(assign_formats(layouts, name, benchmark.conditions))
    return layouts


def named_files(data: NamedData) -> CocoData:
    """The files behind a data set's name.

    Raises:
        InputError: If the name is unknown or the data set is not there; says how to fetch it.
    """
    from instbench.datasets.home import dataset_paths

    paths = dataset_paths(data.name)
    return CocoData(
        annotations=paths.annotations, captions=paths.captions, images=paths.images, count=data.count
    )


def source_names(benchmark: Benchmark) -> dict[int, str]:
    """File names of the source images by image id, as far as the annotations tell.

    They are compared with the names of ready images; nothing is opened by them.

    Raises:
        InputError: If the annotations cannot be read.
    """
    from instbench.datasets.problems import read_json

    data = benchmark.dataset
    if isinstance(data, ShapesData):
        return {}  # named by their keys
    if isinstance(data, NamedData):
        data = named_files(data)
    names = {}
    for image in read_json(data.annotations)["images"]:
        name = image.get("file_name") or image.get("coco_url")
        if isinstance(name, str):
            names[image["id"]] = PurePosixPath(name).name
    return names


@lru_cache(maxsize=16)
def _shapes_layouts(
    data: ShapesData, edition: str, attribute: str | None, prompt: str, square: int | None
) -> tuple[Layout, ...]:
    from instbench.datasets.shapes import TEXTURES, WORLDS, shapes_dataset
    from instbench.layouts import from_coco

    if data.world not in WORLDS:
        raise InputError(f"unknown Shapes world {data.world!r}; {did_you_mean(data.world, list(WORLDS))}")
    shapes = shapes_dataset(world=data.world, split=data.split, count=data.count)
    layouts = from_coco(
        shapes.annotations if square is None else _squared(shapes.annotations, square),
        shapes.captions,
        edition=edition,
        attribute=attribute,
        dataset=f"{data.world}-{data.split}",
        prompt=prompt,
        # The paper edition gives out words by annotation id; only the world's own can be drawn and seen.
        attribute_words=TEXTURES if attribute == "texture" else None,
    )
    return tuple(layouts)


def _coco_layouts(
    data: CocoData, benchmark: Benchmark, limit: int | None, dataset: str
) -> tuple[Layout, ...]:
    from instbench.layouts import from_coco

    counts = [count for count in (data.count, limit) if count is not None]
    annotations: Path | dict[str, Any] = data.annotations
    if benchmark.square_source is not None:
        annotations = _squared(data.annotations, benchmark.square_source, min(counts, default=None))
    layouts = from_coco(
        annotations,
        data.captions,
        edition=benchmark.edition,
        attribute=benchmark.attribute,
        dataset=dataset,
        limit=min(counts, default=None),
        images_dir=data.images,
        prompt=benchmark.prompt,
    )
    return tuple(layouts)


def _squared(source: Path | dict[str, Any], size: int, limit: int | None = None) -> dict[str, Any]:
    """Annotations on the square canvas of the published runs; images keep the names of their files.

    Args:
        source: COCO-format file or its content.
        size: Side of the canvas in pixels.
        limit: Only the first images in ascending order of id.
    """
    from instbench.datasets.canvas import scale_annotations
    from instbench.datasets.problems import raise_on_errors, read_json
    from instbench.datasets.validation import check_annotations

    data = read_json(source) if isinstance(source, Path) else source
    raise_on_errors(check_annotations(data), str(source) if isinstance(source, Path) else "annotations")
    images = sorted(data["images"], key=lambda image: image["id"])[:limit]
    wanted = {image["id"] for image in images}
    annotations = [one for one in data["annotations"] if one["image_id"] in wanted]
    scaled, _ = scale_annotations(data | {"images": images, "annotations": annotations}, size)
    for image, before in zip(scaled["images"], images, strict=True):
        image.pop("file_name")
        image.update({name: before[name] for name in ("file_name", "coco_url") if name in before})
    return scaled


def layouts_sha256(layouts: Sequence[Layout]) -> str:
    """Hashes layouts in their canonical form; where the real images lie does not count."""
    from instbench.layouts.serialization import layout_to_json

    lines = [canonical_json(layout_to_json(replace(layout, source_path=None))) for layout in layouts]
    return sha256_bytes("\n".join(lines).encode())


def checked_layouts(benchmark: Benchmark, limit: int | None = None) -> tuple[Layout, ...]:
    """Makes the layouts of a benchmark and checks them against the frozen checksum.

    Args:
        benchmark: The benchmark.
        limit: Keep the first so many, after the check.

    Returns:
        The layouts.

    Raises:
        InputError: If the layouts are not those that the benchmark froze, or there are none.
    """
    expected = benchmark.dataset.layouts_sha256
    layouts = make_layouts(benchmark, limit if expected is None else None)
    if expected is not None:
        actual = _cached_sha256(layouts)
        if actual != expected:
            raise InputError(
                f"the layouts of {benchmark.name} changed: expected SHA-256 {expected[:16]}…, made {actual[:16]}…; "
                "use the instbench version that froze them"
            )
    if not layouts:
        raise InputError(f"{benchmark.name}: no layouts in the annotations")
    keys = [layout.image_key for layout in layouts]
    if len(set(keys)) != len(keys):
        raise InputError(f"{benchmark.name}: two layouts share an image key")
    return layouts if limit is None else layouts[:limit]


@lru_cache(maxsize=16)
def _cached_sha256(layouts: tuple[Layout, ...]) -> str:
    return layouts_sha256(layouts)


def dataset_identity(benchmark: Benchmark, layouts: Sequence[Layout]) -> dict[str, Any]:
    """What identifies the data of a benchmark: names for the built-in worlds, hashes for files.

    Args:
        benchmark: The benchmark.
        layouts: Its layouts. Their real images are the ceiling's pictures and the reference of FID.

    Returns:
        Plain JSON values.

    Raises:
        InputError: If a file cannot be read.
    """
    data = benchmark.dataset
    if isinstance(data, ShapesData):
        return data.model_dump(mode="json", include={"kind", "world", "split", "count"})
    named = {"name": data.name} if isinstance(data, NamedData) else {}
    kind = data.kind
    if isinstance(data, NamedData):
        data = named_files(data)
    return {
        "kind": kind,
        **named,
        "annotations_sha256": _file_hash("--annotations", data.annotations),
        "captions_sha256": None if data.captions is None else _file_hash("--captions", data.captions),
        "images_sha256": None if data.images is None else _images_hash(layouts),
        "count": data.count,
    }


def _images_hash(layouts: Sequence[Layout]) -> str:
    """One hash over the real images of the layouts; one that is not there counts as such."""
    hashes = {}
    for layout in layouts:
        path = None if layout.source_path is None else Path(layout.source_path)
        known = path is not None and path.is_file()
        hashes[layout.image_key] = _file_hash("--images", path) if known else None
    return sha256_bytes(canonical_json(hashes).encode())


def _file_hash(option: str, path: Any) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read ({error.strerror or error})") from error
