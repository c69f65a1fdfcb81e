from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reference_model.training.data import (
    CocoFolder,
    ObjectRecord,
    SceneRecord,
    cached_images,
    edge_crops,
    read_folder,
)


def test_folder_is_read(training_folder: Path):
    folder = read_folder(training_folder)
    assert len(folder.scenes) == 8
    assert folder.categories == ("circle", "square")
    assert set(folder.attributes) == {"color", "texture"}
    scene = folder.scenes[0]
    assert len(scene.objects) == 2
    assert len(scene.captions) == 4
    left, top, right, bottom = scene.objects[0].box
    assert (right - left, bottom - top) == (24, 24)
    assert len(read_folder(training_folder, limit=3).scenes) == 3


def test_images_are_cached_once(training_folder: Path):
    folder = read_folder(training_folder)
    images = cached_images(folder)
    assert images.shape == (8, 64, 64, 3)
    assert np.array_equal(images[3], np.asarray(Image.open(folder.scenes[3].path)))
    for scene in folder.scenes:
        scene.path.unlink()
    assert np.array_equal(cached_images(folder), images)


def test_images_of_two_sizes_are_refused(training_folder: Path):
    Image.new("RGB", (32, 32)).save(training_folder / "images" / "5.png")
    with pytest.raises(ValueError, match=r"5\.png: 32x32"):
        cached_images(read_folder(training_folder))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../x.png"])
def test_file_names_stay_inside_the_folder(training_folder: Path, name: str):
    content = json.loads((training_folder / "instances.json").read_text(encoding="utf-8"))
    content["images"][0]["file_name"] = name
    (training_folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="leaves the images folder"):
        read_folder(training_folder)


def test_bad_folders_are_named(tmp_path: Path, training_folder: Path):
    with pytest.raises(ValueError, match="no such file"):
        read_folder(tmp_path / "nowhere")
    (training_folder / "instances.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_folder(training_folder)
    (training_folder / "instances.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="categories"):
        read_folder(training_folder)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    align=st.sampled_from([1, 4, 8]),
    box=st.tuples(*[st.floats(-20, 100)] * 4),
    share=st.floats(0, 1),
)
def test_crops_are_aligned_windows_of_the_image(seed, align, box, share):
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)[None]
    scene = SceneRecord(0, Path("x"), (64, 48), (ObjectRecord("circle", box),), ())
    folder = CocoFolder(Path(), (scene,), ("circle",), {})
    indices = np.zeros(5, np.int64)
    crops = edge_crops(folder, image, indices, 16, np.random.default_rng(seed), align=align, edge_share=share)
    for crop in crops:
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        assert top % align == 0
        assert left % align == 0
        assert np.array_equal(crop, image[0, top : top + 16, left : left + 16])
