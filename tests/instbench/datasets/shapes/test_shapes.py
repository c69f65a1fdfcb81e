"""The Shapes worlds: deterministic, within their own rules, valid as COCO data."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from instbench.datasets.shapes import COLORS, TEXTURES, WORLDS, export_coco, shapes_dataset
from instbench.datasets.shapes.outlines import OUTLINES
from instbench.datasets.shapes.render import render
from instbench.datasets.shapes.scenes import object_coverage
from instbench.errors import InputError


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_scenes_do_not_depend_on_count_or_order(world):
    few, many = shapes_dataset(world, "val", 3), shapes_dataset(world, "val", 40)
    last = few.image_ids[-1]
    later = render(many.scene(last))
    many.scene(many.image_ids[30])
    assert np.array_equal(render(few.scene(last)), later)
    assert few.annotations["annotations"] == [
        item for item in many.annotations["annotations"] if item["image_id"] <= last
    ]


def test_splits_and_worlds_differ():
    firsts = {
        (world, split): render(
            shapes_dataset(world, split, 1).scene(shapes_dataset(world, split, 1).image_ids[0])
        )
        for world in WORLDS
        for split in ("train", "val", "test")
    }
    digests = {hashlib.sha256(picture.tobytes()).hexdigest() for picture in firsts.values()}
    assert len(digests) == len(firsts)


@settings(max_examples=60, deadline=None)
@given(world=st.sampled_from(sorted(WORLDS)), index=st.integers(0, 5000))
def test_scene_obeys_its_world(world, index):
    spec = WORLDS[world]
    dataset = shapes_dataset(world, "train", 5001)
    scene = dataset.scene(dataset.image_ids[index])
    assert 1 <= len(scene.objects) <= spec.max_objects
    assert not (scene.masks.sum(axis=0) > 1).any(), "visible masks never overlap"
    for item, mask in zip(scene.objects, scene.masks, strict=True):
        assert item.shape in spec.shapes
        assert item.color in COLORS
        assert item.texture in TEXTURES
        assert spec.size_range[0] <= min(item.width, item.height)
        assert max(item.width, item.height) <= spec.size_range[1]
        assert item.x0 >= 0
        assert item.x0 + item.width <= spec.canvas_size
        outline = object_coverage(item, spec.canvas_size) >= 0.5
        assert not (mask & ~outline).any()
        assert mask.sum() >= spec.min_visible * outline.sum()


@pytest.mark.parametrize("name", sorted(OUTLINES))
def test_outline_fills_its_box(name):
    axis = (np.arange(400) + 0.5) / 200 - 1
    inside = np.broadcast_to(OUTLINES[name](axis[None, :], axis[:, None]), (400, 400))
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    slack = 90 if name == "moon" else 8  # the moon's box is that of its disc
    assert rows[0] <= 8
    assert rows[-1] >= 391
    assert columns[0] <= 8
    assert columns[-1] >= 399 - slack


def test_colour_at_the_centre_of_a_plain_object():
    dataset = shapes_dataset("shapes", "val", 60)
    checked = 0
    for image_id in dataset.image_ids:
        scene = dataset.scene(image_id)
        picture = render(scene).astype(int)
        for item, mask in zip(scene.objects, scene.masks, strict=True):
            if item.texture == "plain":
                median = np.median(picture[mask], axis=0)
                nearest = min(COLORS, key=lambda name: np.abs(median - np.array(COLORS[name])).sum())
                assert nearest == item.color
                checked += 1
    assert checked > 20


def test_coco_records_are_consistent():
    dataset = shapes_dataset("shapes", "val", 20)
    coco = dataset.annotations
    assert len({item["id"] for item in coco["annotations"]}) == len(coco["annotations"])
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    for item in coco["annotations"]:
        mask = coco_mask.decode(item["segmentation"])
        assert mask.sum() == item["area"]
        assert coco_mask.toBbox(item["segmentation"]).tolist() == item["bbox"]
        phrase = f"{item['attributes']['color']} {item['attributes']['texture']} {names[item['category_id']]}"
        assert item["captions"][0] == phrase
        captions = [
            c["caption"] for c in dataset.captions["annotations"] if c["image_id"] == item["image_id"]
        ]
        assert len(captions) == 4
        assert phrase in captions[0]


def test_export_is_complete_and_repeatable(tmp_path):
    folder = export_coco("shapes", "val", 4, tmp_path / "data")
    content = json.loads((folder / "instances.json").read_text())
    pictures = [Image.open(folder / "images" / image["file_name"]) for image in content["images"]]
    dataset = shapes_dataset("shapes", "val", 4)
    for image, picture in zip(content["images"], pictures, strict=True):
        assert np.array_equal(np.asarray(picture), np.asarray(dataset.image(image["id"])))
    before = (folder / "instances.json").stat().st_mtime_ns
    export_coco("shapes", "val", 4, folder)
    assert (folder / "instances.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another export"):
        export_coco("shapes", "val", 5, folder)


def test_an_interrupted_export_goes_on_and_other_files_are_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("instbench.datasets.shapes.dataset.render", lambda scene: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_coco("shapes", "val", 2, folder)
    with pytest.raises(InputError, match=r"holds another export \(shapes-val 2\)"):
        export_coco("shapes", "val", 3, folder)
    assert len(list((export_coco("shapes", "val", 2, folder) / "images").iterdir())) == 2
    assert not (folder / "STARTED").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "instances.json").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        export_coco("shapes", "val", 2, tmp_path / "mine")
    assert (tmp_path / "mine" / "instances.json").read_text() == "mine"


def test_bad_names_are_explained():
    with pytest.raises(InputError, match="did you mean 'shapes-hard'"):
        shapes_dataset("shape-hard", "val")
    with pytest.raises(InputError, match="unknown Shapes split 'valid'"):
        shapes_dataset("shapes", "valid")
    with pytest.raises(InputError, match="count must be"):
        shapes_dataset("shapes", "val", 0)
    dataset = shapes_dataset("shapes", "val", 2)
    with pytest.raises(InputError, match="image id 5"):
        dataset.scene(5)
