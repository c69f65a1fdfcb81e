"""Real images and image folders."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from instbench.datasets.shapes import shapes_dataset
from instbench.errors import InputError
from instbench.generators.base import Generator, SamplingSettings
from instbench.generators.image_folder import FolderRules, ImageFolderGenerator
from instbench.generators.pictures import open_picture, to_canvas
from instbench.generators.real_images import RealImagesGenerator

from .helpers import layout, request


def picture(level: int, size=(16, 16)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def test_both_are_generators(tmp_path):
    picture(1).save(tmp_path / "a.png")
    for generator in (RealImagesGenerator(), ImageFolderGenerator(tmp_path)):
        assert isinstance(generator, Generator)
        assert generator.resolve_sampling(SamplingSettings(num_inference_steps=3)) == SamplingSettings()


def test_canvas_size_is_untouched_and_others_are_squashed():
    same = picture(3)
    assert to_canvas(same, 16) is same
    assert to_canvas(picture(3, (40, 20)), 16).size == (16, 16)


def test_real_image_from_its_path(tmp_path):
    path = tmp_path / "photo.png"
    picture(7, (32, 16)).save(path)
    (made,) = RealImagesGenerator().generate([request(layout("a", source_path=str(path)))])
    assert made.image_key == "a"
    assert np.unique(np.asarray(made.image)).tolist() == [7]
    assert made.image.size == (16, 16)


def test_shapes_layouts_are_rendered():
    data = shapes_dataset("shapes", "val", 2)
    wanted = layout("a", dataset="shapes-val", image_id=data.image_ids[1])
    (made,) = RealImagesGenerator().generate([request(wanted, canvas=128)])
    assert np.array_equal(np.asarray(made.image), np.asarray(data.image(data.image_ids[1])))


def test_missing_real_images_are_named(tmp_path):
    with pytest.raises(InputError, match="img-3: the layout has no real image"):
        list(RealImagesGenerator().generate([request(layout("img-3"))]))
    with pytest.raises(InputError, match="no such image"):
        list(RealImagesGenerator().generate([request(layout("a", source_path=str(tmp_path / "x.png")))]))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        list(RealImagesGenerator().generate([request(layout("a", source_path=str(tmp_path / "text.png")))]))


@pytest.mark.parametrize("name", ["img-1.png", "139.jpg", "000000000139.webp", "img-1.JPEG"])
def test_folder_finds_keys_and_ids(tmp_path, name):
    picture(50).save(tmp_path / name)
    wanted = layout("img-1", image_id=139)
    folder = ImageFolderGenerator(tmp_path).for_layouts([wanted], 16)
    (made,) = folder.generate([request(wanted)])
    assert made.image_key == "img-1"
    assert made.info == {"file": name, "source_size": [16, 16]}
    assert abs(int(np.asarray(made.image).mean()) - 50) <= 2


def test_folder_refuses_an_image_that_changed_after_the_check(tmp_path):
    picture(1).save(tmp_path / "img-1.png")
    wanted = layout("img-1")
    folder = ImageFolderGenerator(tmp_path).for_layouts([wanted], 16)
    picture(2).save(tmp_path / "img-1.png")
    with pytest.raises(InputError, match=r"img-1\.png: changed while it was read"):
        list(folder.generate([request(wanted)]))


@pytest.mark.parametrize("side", [9_000, 60_000])  # above our limit; above Pillow's own too
def test_pictures_with_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.png: cannot be read as an image \(.*pixels"):
        open_picture(tmp_path / "bomb.png")


def test_folder_identity_follows_the_images(tmp_path):
    picture(1).save(tmp_path / "a.png")
    before = ImageFolderGenerator(tmp_path).identity()
    assert before == ImageFolderGenerator(tmp_path).identity()
    picture(2).save(tmp_path / "a.png")
    assert ImageFolderGenerator(tmp_path).identity() != before


def test_folder_identity_is_that_of_the_images_that_are_used(tmp_path):
    picture(1).save(tmp_path / "img-1.png")
    wanted = [layout("img-1")]
    rules = FolderRules(allow_missing=True)
    before = ImageFolderGenerator(tmp_path, rules).for_layouts(wanted, 16).identity()
    picture(2).save(tmp_path / "other.png")
    assert ImageFolderGenerator(tmp_path, rules).for_layouts(wanted, 16).identity() == before
    assert before["resize"] == "none"
    with pytest.raises(InputError, match="no such folder"):
        ImageFolderGenerator(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        ImageFolderGenerator(tmp_path / "empty")
