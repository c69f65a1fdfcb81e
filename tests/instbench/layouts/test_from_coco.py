from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from instbench.errors import InputError
from instbench.layouts import from_coco, image_key
from instbench.layouts.rle import decode
from tests.instbench.layouts.builders import annotation, captions, coco, crowd, square


def test_one_instance_in_relative_coordinates() -> None:
    (layout,) = from_coco(coco(annotation(11)), captions("A cat."), dataset="mine")
    assert (layout.image_key, layout.dataset, layout.caption) == ("000000000001", "mine", "A cat.")
    (instance,) = layout.requested
    assert instance.phrase == instance.category == "cat"
    assert instance.box_xyxy == pytest.approx((20 / 80, 10 / 60, 30 / 80, 20 / 60))
    assert instance.point_xy == pytest.approx((25 / 80, 15 / 60))
    assert instance.mask is not None
    assert decode(instance.mask).sum() == 100
    assert instance.scribble_xy is not None
    assert instance.mask_points_xy is not None
    assert (len(instance.scribble_xy), len(instance.mask_points_xy)) == (20, 256)
    assert instance.area == 100


def test_images_come_in_order_of_id_and_without_instances_too() -> None:
    data = coco(annotation(1, 3), images=4)
    data["images"].reverse()
    layouts = from_coco(data)
    assert [layout.image_id for layout in layouts] == [1, 2, 3, 4]
    assert [len(layout.instances) for layout in layouts] == [0, 0, 1, 0]
    assert layouts[0].caption == ""
    assert [layout.image_id for layout in from_coco(data, limit=2)] == [1, 2]
    assert [layout.image_id for layout in from_coco(data, image_ids=[4, 2])] == [2, 4]


def test_crowds_degenerate_and_surplus_annotations_are_kept_but_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = [
        crowd(1),
        annotation(2, bbox=[20, 10, 0, 5]),
        annotation(3, segmentation=[[1, 1, 2, 2]]),
        annotation(4, bbox=[200, 10, 5, 5]),
        *(annotation(n) for n in range(5, 9)),
    ]
    with caplog.at_level(logging.WARNING):
        (layout,) = from_coco(coco(*records), max_instances=3)
    reasons = [instance.ignore_reason for instance in layout.instances]
    assert reasons == ["crowd", "degenerate", "degenerate", "degenerate", None, None, None, "over-cap"]
    assert [instance.is_ignored for instance in layout.instances] == [
        reason is not None for reason in reasons
    ]
    assert layout.instances[0].is_crowd
    assert layout.instances[0].mask is not None
    assert [instance.annotation_id for instance in layout.requested] == [5, 6, 7]
    assert layout.caption == "cat, cat, cat"
    assert "3 degenerate annotations kept but not asked for (ids 2, 3, 4)" in caplog.text


def test_multi_part_polygons_make_one_mask() -> None:
    parts = [square(10, 10, 10), square(40, 10, 10)]
    (layout,) = from_coco(coco(annotation(1, segmentation=parts, bbox=[10, 10, 40, 10])))
    (instance,) = layout.instances
    assert instance.mask is not None
    mask = decode(instance.mask)
    assert mask.sum() == 200
    # The box centre falls into the gap: the point moves to the nearest pixel of the object.
    assert instance.point_xy is not None
    x, y = instance.point_xy
    assert mask[int(y * 60), int(x * 80)]
    assert x in (pytest.approx(19.5 / 80), pytest.approx(40.5 / 80))


def test_boxes_alone_are_enough() -> None:
    (layout,) = from_coco(coco(annotation(1, segmentation=[]), annotation(2, segmentation=None)))
    for instance in layout.requested:
        assert instance.mask is None
        assert instance.scribble_xy is None
        assert instance.point_xy == pytest.approx((25 / 80, 15 / 60))
    assert len(layout.requested) == 2


def test_boxes_that_reach_out_are_clipped() -> None:
    (layout,) = from_coco(coco(annotation(1, bbox=[-10, 50, 30, 30], segmentation=None)))
    assert layout.requested[0].box_xyxy == pytest.approx((0, 50 / 60, 20 / 80, 1))


def test_attribute_runs_by_annotation_id() -> None:
    data = coco(annotation(10), annotation(13, category_id=7))
    (colors,) = from_coco(data, captions("Two animals"), attribute="color")
    assert [instance.phrase for instance in colors.instances] == ["red cat", "blue dog"]
    assert [(instance.color, instance.texture) for instance in colors.instances] == [
        ("red", None),
        ("blue", None),
    ]
    assert colors.caption == "Two animals. red cat, blue dog"
    (textures,) = from_coco(data, attribute="texture")
    assert [instance.phrase for instance in textures.instances] == ["metallic cat", "fabric dog"]
    assert textures.caption == "metallic cat, fabric dog"


def test_a_datasets_own_words_come_first() -> None:
    own = annotation(
        1, attributes={"color": "pink", "texture": "striped"}, captions=["pink striped cat", "cat"]
    )
    texts = captions("a pink striped cat on grey", "a pink cat on grey", "a striped cat on grey")
    (plain,) = from_coco(coco(own), texts)
    assert plain.caption == "a pink striped cat on grey"
    assert plain.instances[0].phrase == "pink striped cat"
    assert (plain.instances[0].color, plain.instances[0].texture) == ("pink", "striped")
    (color,) = from_coco(coco(own), texts, attribute="color")
    assert (color.caption, color.instances[0].phrase) == ("a pink cat on grey", "pink cat")
    assert color.instances[0].texture is None
    (texture,) = from_coco(coco(own), texts, attribute="texture")
    assert (texture.caption, texture.instances[0].phrase) == ("a striped cat on grey", "striped cat")


def test_points_do_not_depend_on_the_rest_of_the_file_but_on_the_seed() -> None:
    alone = from_coco(coco(annotation(5)))[0].instances[0]
    together = from_coco(coco(annotation(4), annotation(5)))[0].instances[1]
    assert alone == together
    assert from_coco(coco(annotation(5)), seed=1)[0].instances[0].scribble_xy != alone.scribble_xy


def test_paper_edition_asks_for_everything_and_joins_without_separator() -> None:
    data = coco(crowd(1), annotation(2), annotation(3, category_id=7))
    (layout,) = from_coco(data, captions("Pets."), edition="paper", max_instances=1)
    assert len(layout.requested) == 3
    assert layout.instances[0].is_crowd
    assert layout.caption == "Pets.cat, cat, dog"
    (names,) = from_coco(data, captions("Pets."), edition="paper", prompt="names", attribute="color")
    assert names.caption == "white cat, red cat, green dog"
    assert names.instances[1].point_xy == pytest.approx((25 / 80, 15 / 60))
    again = from_coco(data, captions("Pets."), edition="paper")
    assert again == from_coco(data, captions("Pets."), edition="paper")
    assert again != from_coco(data, captions("Pets."), edition="paper", seed=1)


def test_source_paths_stay_in_the_folder(tmp_path: Path) -> None:
    images, outside = tmp_path / "images", tmp_path / "outside.png"
    images.mkdir()
    outside.write_bytes(b"")
    (layout,) = from_coco(coco(annotation(1)), images_dir=images)
    assert layout.source_path == str(images / "1.png")
    assert from_coco(coco(annotation(1)))[0].source_path is None
    (images / "1.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"image 1: file_name '1\.png' leads out of"):
        from_coco(coco(annotation(1)), images_dir=images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edition": "loose"}, "edition 'loose' is unknown"),
        ({"attribute": "size"}, "attribute 'size' is unknown"),
        ({"prompt": "poem"}, "prompt rule 'poem' is unknown"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"max_instances": 0}, "max_instances must be at least 1"),
        ({"image_ids": [1, 99]}, "image id 99 is not in images"),
        ({"image_ids": ["../1"]}, "is not in images"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_coco(coco(annotation(1)), **options)  # type: ignore[arg-type]


def test_files_are_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco(annotation(1))))
    assert len(from_coco(path)[0].instances) == 1
    path.write_text(json.dumps(coco(annotation(1, category_id=3))))
    with pytest.raises(
        InputError, match=r"instances\.json: annotation 1: category_id: 3 is not in categories"
    ):
        from_coco(path)


def test_image_keys_are_safe() -> None:
    assert image_key(42) == "000000000042"
    for bad in (-1, True, "7", 1.0):
        with pytest.raises(InputError, match="non-negative integer"):
            image_key(bad)  # type: ignore[arg-type]


def test_shapes_scenes_become_layouts() -> None:
    from instbench.datasets.shapes import shapes_dataset

    scenes = shapes_dataset("shapes", "val", 3)
    layouts = from_coco(scenes.annotations, scenes.captions, dataset=scenes.name)
    assert [layout.image_id for layout in layouts] == list(scenes.image_ids)
    for layout in layouts:
        assert layout.requested
        for instance in layout.requested:
            assert instance.color is not None
            assert instance.color in instance.phrase
            assert instance.mask is not None
            assert instance.point_xy is not None
            x, y = instance.point_xy
            mask = decode(instance.mask)
            assert mask[int(y * mask.shape[0]), int(x * mask.shape[1])]
            assert np.all(np.array(instance.scribble_xy) < 1)


def test_images_without_caption_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="instbench"):
        layouts = from_coco(coco(annotation(1), images=3), captions("A cat."))
    assert "2 images have no caption (ids 2, 3); their prompts are made of names" in caplog.text
    assert layouts[0].caption == "A cat."
    caplog.clear()
    from_coco(coco(annotation(1), images=3))
    assert "no caption" not in caplog.text
