from __future__ import annotations

import json
import shutil

import pytest

from instbench import api
from instbench.benchmarks import load_benchmark
from instbench.benchmarks.describe import describe_benchmark
from instbench.errors import InputError
from instbench.runs.atomic import sha256_file
from tests.instbench.fakes import write_benchmark, write_coco

NAMED = {"kind": "named", "name": "coco-val2017"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home whose coco-val2017 is a small file."""
    home = tmp_path / "home"
    folder = home / "coco-val2017"
    made = write_coco(tmp_path / "made")
    (folder / "annotations").mkdir(parents=True)
    shutil.copy(made, folder / "annotations" / "instances_val2017.json")
    shutil.copy(made.parent / "captions.json", folder / "annotations" / "captions_val2017.json")
    shutil.copytree(made.parent / "real", folder / "val2017")
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setenv("INSTBENCH_DATA", str(home))
    return folder


def test_a_named_data_set_is_found_and_identified_by_its_files(tmp_path, home, fakes):
    name = str(write_benchmark(tmp_path, dataset=NAMED))
    [outcome] = api.run(name, tmp_path / "run", model="fake", limit=3)
    assert outcome.results is not None
    assert outcome.results.metrics["box_ap50"].value == pytest.approx(1.0)
    assert outcome.results.metrics["fid"].value is not None
    identity = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]
    annotations = home / "annotations" / "instances_val2017.json"
    assert identity["dataset"]["name"] == "coco-val2017"
    assert identity["dataset"]["annotations_sha256"] == sha256_file(annotations)
    assert identity["dataset"]["images_sha256"] is not None
    line = json.loads((tmp_path / "run" / "layouts.jsonl").read_text().splitlines()[0])
    assert (line["dataset"], line["caption"]) == ("coco-val2017", "A cat and a dog.")
    annotations.write_text(annotations.read_text() + "\n")
    with pytest.raises(InputError, match=r"dataset\.annotations_sha256"):
        api.run(name, tmp_path / "run", model="fake", limit=3)


def test_the_paper_edition_squashes_the_data_first_and_finds_its_images(tmp_path, home, fakes):
    fields = {"edition": "paper", "square_source": 64, "conditions": ["box", "point"]}
    metrics = [{"name": "box_ap50"}, {"name": "pim_point"}]
    name = str(write_benchmark(tmp_path, dataset=NAMED, metrics=metrics, **fields))
    [outcome] = api.run(name, tmp_path / "run", model="real-images", edition="paper", limit=3)
    assert outcome.results is not None
    assert outcome.results.counts["images"] == 3
    assert [one.n_scored for one in outcome.results.metrics.values()] == [6, 6]
    lines = [json.loads(line) for line in (tmp_path / "run" / "layouts.jsonl").read_text().splitlines()]
    first, second = lines[0]["instances"]
    assert (lines[0]["source_width"], lines[0]["source_height"]) == (64, 64)
    assert lines[0]["caption"] == "A cat and a dog.cat, dog"
    assert first["mask"]["size"] == [64, 64]
    assert first["box_xyxy"] == pytest.approx([6 / 96, 6 / 48, 36 / 96, 26 / 48])
    assert first["area"] == 20 * 27  # 4..24 by 8..35 on the canvas, rounded as the masks are
    assert second["point_xy"] == pytest.approx([69 / 96, 16 / 48])


def test_data_that_is_not_there_says_how_to_get_it(tmp_path, home, fakes):
    shutil.rmtree(home)
    name = str(write_benchmark(tmp_path, dataset=NAMED))
    with pytest.raises(
        InputError, match="coco-val2017 is not there; run `instbench data fetch coco-val2017`"
    ):
        api.run(name, tmp_path / "run", model="fake")
    assert not (tmp_path / "run").exists()
    own = tmp_path / "made" / "instances.json"
    [outcome] = api.run(name, tmp_path / "run", model="fake", annotations=own)
    assert outcome.results is not None
    assert outcome.results.benchmark == "toy-box@custom"


def test_its_description_says_where_it_comes_from(tmp_path):
    benchmark = load_benchmark(str(write_benchmark(tmp_path, dataset={**NAMED, "count": 7})))
    assert describe_benchmark(benchmark)["data"] == (
        "coco-val2017 (`instbench data fetch coco-val2017`), 7 images, "
        "identified by the SHA-256 of its annotation file"
    )


def test_unknown_names_are_refused(tmp_path, home, fakes):
    name = str(write_benchmark(tmp_path, dataset={"kind": "named", "name": "coco-val2077"}))
    with pytest.raises(InputError, match="unknown data set 'coco-val2077'"):
        api.run(name, tmp_path / "run", model="fake")
