from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instbench.datasets import CocoAnnotations
from instbench.datasets.manifest import verify_folder
from instbench.datasets.prepare import prepare_canvas
from instbench.errors import InputError
from instbench.generators.pictures import to_canvas
from tests.instbench.datasets.fetching.world import lvis_content
from tests.instbench.layouts.builders import annotation, captions, coco, crowd, square


@pytest.fixture
def source(tmp_path: Path) -> Path:
    data = coco(
        annotation(1),
        annotation(
            2, 2, category_id=7, segmentation=[square(5, 5, 20), square(40, 30, 15)], bbox=[5, 5, 50, 40]
        ),
        crowd(3, 2),
        annotation(4, 1, segmentation={"size": [60, 80], "counts": [600, 300, 3900]}, bbox=[10, 0, 5, 60]),
        images=2,
    )
    (tmp_path / "a.json").write_text(json.dumps(data))
    (tmp_path / "c.json").write_text(json.dumps(captions("A cat.")))
    (tmp_path / "source").mkdir()
    for number in (1, 2):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "source" / f"{number}.png")
    return tmp_path / "a.json"


def test_the_folder_holds_what_was_asked_for(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    manifest = prepare_canvas(
        source, output, captions=tmp_path / "c.json", images_dir=tmp_path / "source", size=32
    )
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()) == [
        "captions.json",
        "images/000000000001.png",
        "images/000000000002.png",
        "instances.json",
        "manifest.json",
    ]
    assert manifest.counts == {"images": 2, "annotations": 4, "crowds": 1, "degenerate": 0}
    assert manifest.settings["canvas_size"] == 32
    assert verify_folder(output) == []
    assert CocoAnnotations.read(output / "instances.json").images[2].width == 32
    expected = to_canvas(Image.open(tmp_path / "source" / "2.png"), 32)
    assert (np.asarray(Image.open(output / "images" / "000000000002.png")) == np.asarray(expected)).all()


def test_equal_input_gives_equal_bytes(source: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        prepare_canvas(source, folder, images_dir=tmp_path / "source", size=32)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    )
    assert first == second
    prepare_canvas(
        source, folders[0], images_dir=tmp_path / "source", size=32
    )  # once more into a full folder
    assert (folders[0] / "manifest.json").read_bytes() == second[Path("manifest.json")]


def test_an_interrupted_call_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (tmp_path / "source" / "2.png").rename(tmp_path / "away.png")
    with pytest.raises(InputError, match=r"2.png: no such image"):
        prepare_canvas(source, output, images_dir=tmp_path / "source", size=32)
    assert not (output / "manifest.json").exists()
    before = (output / "images" / "000000000001.png").stat().st_mtime_ns
    (tmp_path / "away.png").rename(tmp_path / "source" / "2.png")
    prepare_canvas(source, output, images_dir=tmp_path / "source", size=32)
    assert (output / "images" / "000000000001.png").stat().st_mtime_ns == before
    assert verify_folder(output) == []


def test_folders_of_other_data_are_refused(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare_canvas(source, output, size=32)
    with pytest.raises(InputError, match="holds data of other settings"):
        prepare_canvas(source, output, size=64)
    with pytest.raises(InputError, match="holds other files; choose an empty folder"):
        prepare_canvas(source, tmp_path, size=32)


def test_links_out_of_the_images_folder_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source" / "1.png").rename(tmp_path / "outside.png")
    (tmp_path / "source" / "1.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match=r"image 1: file_name '1\.png' leads out of"):
        prepare_canvas(source, tmp_path / "out", images_dir=tmp_path / "source")


@pytest.mark.parametrize("change", [{"category_id": 99}, {"bbox": [0, 0, float("nan"), 1]}])
def test_bad_annotations_are_named(source: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    source.write_text(json.dumps(coco(annotation(1, **change))))
    with pytest.raises(InputError, match=r"a\.json: annotation 1: "):
        prepare_canvas(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nan_in_a_field_that_nothing_reads_is_named(source: Path, tmp_path: Path) -> None:
    source.write_text(json.dumps(coco(annotation(1)) | {"info": {"x": float("nan")}}))
    with pytest.raises(InputError, match="the source holds NaN"):
        prepare_canvas(source, tmp_path / "out")


def test_lvis_fields_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(lvis_content()))
    prepare_canvas(tmp_path / "a.json", tmp_path / "out", size=32)
    read = CocoAnnotations.read(tmp_path / "out" / "instances.json")
    assert read.frequencies == {1: "f", 2: "r"}
    assert read.images[3].neg_category_ids == (2,)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_ground_truth_finds_itself(source: Path, tmp_path: Path, kind: str) -> None:
    prepare_canvas(source, tmp_path / "out", size=64)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "out" / "instances.json"))
        found = [
            {
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "score": 1.0,
                "bbox": record["bbox"],
                "segmentation": truth.annToRLE(record),
            }
            for record in truth.dataset["annotations"]
            if not record["iscrowd"]
        ]
        if kind == "bbox":
            for record in found:
                del record["segmentation"]
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0
