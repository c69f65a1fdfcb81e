"""Real images among ready ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from instbench.datasets.shapes import shapes_dataset
from instbench.errors import InputError
from instbench.generators.image_folder import FolderRules, ImageFolderGenerator
from instbench.generators.manifest import read_manifest
from instbench.generators.real_photos import find_real_images

from .helpers import layout

CANVAS = 128


def photo(seed: int, size=(120, 80)) -> Image.Image:
    """A picture with structure at all scales."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    ImageDraw.Draw(image).ellipse((10, 10, 60, 50), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    return image


@pytest.fixture
def world(tmp_path):
    """Four layouts with their originals, and an empty folder for images."""
    (tmp_path / "real").mkdir()
    (tmp_path / "made").mkdir()
    layouts = []
    for number in range(1, 5):
        path = tmp_path / "real" / f"{number}.jpg"
        photo(number).save(path, quality=92)
        layouts.append(
            layout(
                f"{number:012d}", image_id=number, source_path=str(path), source_width=120, source_height=80
            )
        )
    return layouts, tmp_path / "made"


def look(layouts, folder):
    return find_real_images(read_manifest(folder, layouts, CANVAS), layouts)


def copied(path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


COPIES = {
    "squashed as we do": lambda image: image.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC),
    "squashed otherwise": lambda image: image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR),
    "as it was": lambda image: image,
    "slightly blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.6)),
}


@pytest.mark.parametrize("name", list(COPIES))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_copies_are_noticed(world, name, suffix):
    layouts, folder = world
    for one in layouts:
        COPIES[name](copied(one.source_path)).save(folder / f"{one.image_id}.{suffix}")
    found = look(layouts, folder)
    assert found.found
    assert len(found.identical) + len(found.alike) == found.compared == 4


def test_the_same_files_are_identical_and_refused(world):
    layouts, folder = world
    for one in layouts:
        (folder / f"{one.image_id}.jpg").write_bytes(open(one.source_path, "rb").read())  # noqa: PTH123, SIM115
    assert len(look(layouts, folder).identical) == 4
    with pytest.raises(
        InputError, match=r"holds the real images of coco-box \(4 of 4 images identical.*--allow-real"
    ):
        ImageFolderGenerator(folder, FolderRules(resize=True)).for_layouts(
            layouts, CANVAS, benchmark="coco-box"
        )
    rules = FolderRules(resize=True, allow_real=True)
    checked = ImageFolderGenerator(folder, rules).for_layouts(layouts, CANVAS)
    assert checked.identity()["real_images"] == "allowed"
    assert checked.report()["real_images"]["identical"] == 4


def test_other_pictures_of_the_same_layouts_pass(world):
    layouts, folder = world
    for one in layouts:
        photo(one.image_id + 100, (CANVAS, CANVAS)).save(folder / f"{one.image_id}.png")
    found = look(layouts, folder)
    assert (found.compared, found.found) == (4, False)
    assert "real_images" not in ImageFolderGenerator(folder).for_layouts(layouts, CANVAS).identity()


def test_one_real_image_among_others_is_enough(world):
    layouts, folder = world
    for one in layouts[1:]:
        photo(one.image_id + 100, (CANVAS, CANVAS)).save(folder / f"{one.image_id}.png")
    copied(layouts[0].source_path).save(folder / "1.png")
    assert look(layouts, folder).identical == ("1.png",)


def test_names_and_sizes_speak_where_the_originals_are_not_at_hand(world):
    layouts, folder = world
    unknown = [
        layout(one.image_key, image_id=one.image_id, source_width=120, source_height=80) for one in layouts
    ]
    for one in layouts:
        copied(one.source_path).save(folder / f"{one.image_id}.jpg")
    found = look(unknown, folder)
    assert (found.found, found.compared, len(found.same_names)) == (True, 0, 4)
    assert "named and sized as the originals" in found.describe()
    for one in layouts:
        copied(one.source_path).resize((CANVAS, CANVAS)).save(folder / f"{one.image_id}.jpg")
    assert not look(unknown, folder).found


def test_flat_pictures_are_told_by_their_bytes_alone(world):
    layouts, folder = world
    for one in layouts:
        Image.new("RGB", (120, 80), (9, 9, 9)).save(one.source_path)
        Image.new("RGB", (CANVAS, CANVAS), (9, 9, 9)).save(folder / f"{one.image_id}.png")
    assert not look(layouts, folder).found


def test_shapes_are_compared_with_their_renders(tmp_path):
    data = shapes_dataset("shapes", "val", 2)
    layouts = [
        layout(f"{one:012d}", image_id=one, dataset="shapes-val", source_width=128, source_height=128)
        for one in data.image_ids[:2]
    ]
    for one in layouts:
        data.image(one.image_id).save(tmp_path / f"{one.image_key}.jpg", quality=75)
    found = find_real_images(read_manifest(tmp_path, layouts, 128), layouts)
    assert (found.found, found.compared) == (True, 2)
