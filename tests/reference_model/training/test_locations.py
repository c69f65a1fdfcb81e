"""Locations of COCO data as people have it: sizes differ, polygons, crowds, words missing."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from reference_model.training.locations import Locations, build_location_cache


def folder(tmp_path, annotations, captions=(), images=((60, 40), (30, 50))):
    content = {
        "images": [
            {"id": 7 + number, "file_name": f"{number}.png", "width": width, "height": height}
            for number, (width, height) in enumerate(images)
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": list(annotations),
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    if captions:
        (tmp_path / "captions.json").write_text(json.dumps({"annotations": list(captions)}))
    return tmp_path


def annotation(number, image=7, bbox=(20, 10, 20, 20), category=3, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), **more}


SQUARE = [[20, 10, 40, 10, 40, 30, 20, 30]]


def load(path, side=20, min_area=0.0):
    return Locations.load(build_location_cache(path, side, min_area))


def test_every_kind_of_segmentation_gives_the_same(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 1
    packed = coco_mask.encode(np.asfortranarray(mask))
    packed["counts"] = packed["counts"].decode()
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    kinds = [SQUARE, packed, {"size": [40, 60], "counts": runs}]
    found = load(folder(tmp_path, [annotation(n, segmentation=kind) for n, kind in enumerate(kinds)]))
    masks = found.masks(np.arange(3))
    expected = np.zeros((20, 20), np.uint8)
    expected[5:15, 5:15] = 1
    for each in masks:
        assert np.array_equal(each, expected)
    assert np.allclose(found.boxes, [0.25, 0.25, 0.75, 0.75])
    assert np.allclose(found.points, 0.5)
    assert found.mask_points.min() >= 0.25
    assert found.mask_points.max() <= 0.8  # the published boundary lies one pixel further


def test_crowds_small_and_cropped_instances_are_left_out(tmp_path):
    path = folder(
        tmp_path,
        [
            annotation(1, segmentation=SQUARE),
            annotation(2, iscrowd=1, segmentation=SQUARE),
            annotation(3, bbox=(0, 0, 5, 5)),  # the middle square starts at x = 10
            annotation(4, bbox=(20, 10, 2, 2)),
            annotation(5, bbox=(0, 0, 30, 30)),
        ],
    )
    assert len(load(path, min_area=0.01).boxes) == 2
    assert len(load(path).boxes) == 3


def test_words_that_are_missing(tmp_path):
    path = folder(
        tmp_path,
        [
            annotation(1, bbox=(20, 10, 10, 10)),
            annotation(2, bbox=(10, 10, 20, 20), category=5, caption="a grey cat"),
            annotation(3, bbox=(10, 0, 30, 30)),
        ],
        captions=[{"image_id": 8, "caption": "first"}, {"image_id": 8, "caption": "second"}],
    )
    found = load(path)
    captions = [[found.captions[row] for row in found.captions_of(image)] for image in range(2)]
    assert captions == [["2 dog, 1 cat"], ["first", "second"]]
    full, name = found.phrase_ids[1, 0], found.phrase_ids[1, -1]
    assert (found.phrases[full], found.phrases[name]) == ("a grey cat", "cat")
    assert not found.has_mask.any()
    assert found.instances_of(1).size == 0


def test_bad_data_is_named(tmp_path):
    for bad, message in (
        ({"segmentation": [[1, 2, 3, 4]]}, r"instances\.json: annotation 1: a polygon needs three points"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, r"annotation 1: a mask of \[4, 4\]"),
        ({"category_id": 9}, "missing or malformed field 9"),
    ):
        with pytest.raises(ValueError, match=message):
            load(folder(tmp_path, [{**annotation(1), **bad}]))
    with pytest.raises(ValueError, match="images differ in size; set the side of a square canvas"):
        build_location_cache(folder(tmp_path, [annotation(1)]))
