"""Real images and image folders."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from instbench.datasets.shapes import shapes_dataset
from instbench.errors import InputError
from instbench.generators.base import Generator, SamplingSettings
from instbench.generators.image_folder import ImageFolderGenerator
from instbench.generators.pictures import to_canvas
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
    (made,) = ImageFolderGenerator(tmp_path).generate([request(layout("img-1", image_id=139))])
    assert made.image_key == "img-1"
    assert abs(int(np.asarray(made.image).mean()) - 50) <= 2


def test_folder_refuses_missing_and_ambiguous_images(tmp_path):
    picture(1).save(tmp_path / "img-1.png")
    generator = ImageFolderGenerator(tmp_path)
    with pytest.raises(InputError, match=r"no image for img-2; add img-2\.png"):
        list(generator.generate([request(layout("img-2", image_id=2))]))
    picture(2).save(tmp_path / "000000000007.jpg")
    with pytest.raises(InputError, match="keep one of them"):
        list(ImageFolderGenerator(tmp_path).generate([request(layout("img-1", image_id=7))]))
    with pytest.raises(InputError, match="no such folder"):
        ImageFolderGenerator(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        ImageFolderGenerator(tmp_path / "empty")


def test_folder_identity_follows_the_images(tmp_path):
    picture(1).save(tmp_path / "a.png")
    before = ImageFolderGenerator(tmp_path).identity()
    assert before == ImageFolderGenerator(tmp_path).identity()
    picture(2).save(tmp_path / "a.png")
    assert ImageFolderGenerator(tmp_path).identity() != before
