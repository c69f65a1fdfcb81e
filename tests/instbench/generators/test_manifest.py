"""A folder compared with what is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from instbench.errors import InputError
from instbench.generators.image_folder import FolderRules, ImageFolderGenerator
from instbench.generators.manifest import read_manifest

from .helpers import layout

LAYOUTS = [layout(f"{number:012d}", image_id=number) for number in (7, 11, 139)]


def save(path, size=(16, 16), level=90) -> None:
    Image.new("RGB", size, (level, 10, 10)).save(path)


def test_everything_that_does_not_fit_is_listed(tmp_path):
    save(tmp_path / "7.png", size=(20, 16))
    save(tmp_path / "whatever.jpg")
    save(tmp_path / "000000000139.png")
    whole = (tmp_path / "000000000139.png").read_bytes()
    (tmp_path / "000000000139.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    manifest = read_manifest(tmp_path, LAYOUTS, 16)
    assert manifest.missing == ("000000000011", "000000000139")
    assert manifest.extra == ("whatever.jpg",)
    assert list(manifest.unreadable) == ["000000000139.png"]
    assert manifest.wrong_size == {"7.png": (20, 16)}
    assert manifest.ambiguous == {}
    lines = list(manifest.lines())
    assert len(lines) == 5
    assert "wrong size  7.png: 20x16, asked 16x16" in lines
    assert "extra       whatever.jpg" in lines
    assert manifest.to_json()["missing"] == ["000000000011", "000000000139"]


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"0" * 40, b"\xff\xd8\xff\xe0" + b"0" * 40]
)
def test_files_that_are_no_images_are_named_and_do_not_stop_the_check(tmp_path, content):
    (tmp_path / "7.png").write_bytes(content)
    save(tmp_path / "11.png")
    manifest = read_manifest(tmp_path, LAYOUTS, 16)
    assert list(manifest.unreadable) == ["7.png"]
    assert list(manifest.files) == ["000000000011"]


def test_names_of_the_source_images_answer_and_never_become_paths(tmp_path):
    outside = tmp_path / "outside.png"
    save(outside)
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "COCO_val2014_000000000011.jpg")
    names = {7: "../outside.png", 11: "val2014/COCO_val2014_000000000011.jpg", 139: "/etc/passwd"}
    manifest = read_manifest(folder, LAYOUTS, 16, names)
    assert list(manifest.files) == ["000000000011"]
    assert manifest.missing == ("000000000007", "000000000139")


def test_two_files_for_one_layout_and_one_name_for_two_layouts_are_ambiguous(tmp_path):
    save(tmp_path / "7.png")
    save(tmp_path / "000000000007.jpg")
    save(tmp_path / "11.png")
    manifest = read_manifest(tmp_path, LAYOUTS, 16, {139: "11.jpg"})
    assert set(manifest.ambiguous) == {"000000000007.jpg, 7.png", "11.png"}
    assert "000000000011 and 000000000139" in manifest.ambiguous["11.png"]
    for rules in (FolderRules(), FolderRules(allow_missing=True, resize=True)):
        with pytest.raises(InputError, match="2 ambiguous"):
            ImageFolderGenerator(tmp_path, rules).for_layouts(LAYOUTS, 16, names={139: "11.jpg"})


def test_a_broken_link_is_unreadable(tmp_path):
    (tmp_path / "7.png").symlink_to(tmp_path / "gone.png")
    assert list(read_manifest(tmp_path, LAYOUTS, 16).unreadable) == ["7.png"]


def test_rules_say_what_is_refused(tmp_path):
    save(tmp_path / "7.png", size=(20, 16))
    save(tmp_path / "other.png")
    with pytest.raises(
        InputError, match=r"2 missing, 1 of another size, 1 extra .*--allow-missing.*--resize"
    ) as caught:
        ImageFolderGenerator(tmp_path).for_layouts(LAYOUTS, 16)
    assert len(caught.value.details) == 4
    with pytest.raises(InputError, match=r": 1 of another size \("):
        ImageFolderGenerator(tmp_path, FolderRules(allow_missing=True)).for_layouts(LAYOUTS, 16)
    rules = FolderRules(allow_missing=True, resize=True)
    checked = ImageFolderGenerator(tmp_path, rules).for_layouts(LAYOUTS, 16)
    assert checked.absent == ("000000000011", "000000000139")
    assert checked.report()["allow_missing"] is True


def test_extra_images_are_those_of_other_layouts_where_only_some_are_asked(tmp_path):
    for one in LAYOUTS:
        save(tmp_path / f"{one.image_key}.png")
    checked = ImageFolderGenerator(tmp_path).for_layouts(LAYOUTS[:1], 16, complete=False)
    assert checked.absent == ()
    with pytest.raises(InputError, match="2 extra"):
        ImageFolderGenerator(tmp_path).for_layouts(LAYOUTS[:1], 16)


def test_thumbnails_are_those_of_the_canvas(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "7.png")
    file = read_manifest(tmp_path, LAYOUTS[:1], 64).files["000000000007"]
    assert (file.size, file.thumbnail.shape) == ((64, 48), (32, 32, 3))
