"""Everything in `tests.faults.corpus` is refused in one line with exit code 2, and nothing in it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from instbench.cli.main import main
from instbench.datasets.catalog import Member
from instbench.datasets.fetching.unzip import unzip
from instbench.errors import InputError
from instbench.execution.draw_changes import against_picture
from instbench.runs.images import UNREADABLE
from instbench.runs.store import RunFolder
from tests.faults import corpus
from tests.instbench.fakes import write_benchmark

pytestmark = pytest.mark.faults
NAMES = corpus.gadgets(Path("x"))


@pytest.fixture
def sentinel(tmp_path, count):
    path = tmp_path / "executed"
    yield path
    count("hostile files")
    if path.exists():
        count("lost")
    assert not path.exists(), "something in the file was executed"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, reports: bool = False) -> str:
    """Calls the command line; it must refuse in one line (after a report of findings, if there may be one)."""
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 2
    error = capsys.readouterr().err
    lines = error.strip().splitlines()
    assert lines[-1].startswith("error: "), error
    assert reports or len(lines) == 1, error
    assert "Traceback" not in error
    return lines[-1]


@pytest.mark.parametrize("form", ["pickle", "archive"])
@pytest.mark.parametrize("name", NAMES)
def test_pickles_as_checkpoint_and_detector(name, form, tmp_path, sentinel, capsys):
    content = corpus.gadgets(sentinel)[name]
    for ending in (".pth", ".pt"):
        path = tmp_path / f"weights{ending}"
        path.write_bytes(content if form == "pickle" else corpus.torch_archive(content))
    refused(capsys, "convert", tmp_path / "weights.pth", tmp_path / "out")
    run = ("run", "shapes-box", "--limit", "1", "-o", tmp_path / "run")
    refused(capsys, *run, "--checkpoint", tmp_path / "weights.pth")
    refused(capsys, *run, "--model", "text-only", "--detector", tmp_path / "weights.pt")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", corpus.archives())
def test_archives_for_the_fetcher(name, tmp_path, sentinel):
    path, target = tmp_path / "a.zip", tmp_path / "in" / "side"
    path.write_bytes(corpus.archives()[name])
    target.mkdir(parents=True)
    with pytest.raises(InputError) as error:
        unzip(path, (Member("annotations/instances.json", "instances.json"),), target)
    assert "\n" not in str(error.value)
    assert list(target.rglob("*")) == []
    assert not list(tmp_path.rglob("escaped.json"))


@pytest.mark.parametrize("name", corpus.benchmark_files(Path("x")))
def test_benchmark_files(name, tmp_path, sentinel, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(corpus.benchmark_files(sentinel)[name])
    assert "bad.yaml" in refused(capsys, "run", path, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", corpus.json_files())
def test_json_as_annotations_and_records(name, tmp_path, sentinel, capsys):
    path = tmp_path / "bad.json"
    path.write_text(corpus.json_files()[name])
    run = ("run", "shapes-box", "--model", "text-only", "--limit", "1", "-o", tmp_path / "run")
    assert "bad.json" in refused(capsys, *run, "--annotations", path)
    (tmp_path / "old").mkdir()
    path.rename(tmp_path / "old" / "run.json")
    assert "run.json" in refused(capsys, "score", tmp_path / "old")
    assert "run.json" in refused(capsys, "merge", tmp_path / "old", "-o", tmp_path / "joined")


@pytest.mark.parametrize("name", corpus.hostile_instances())
def test_annotation_files(name, tmp_path, sentinel, capsys):
    path, real = tmp_path / "bad.json", tmp_path / "real"
    path.write_text(corpus.hostile_instances()[name])
    real.mkdir()
    run = ("run", "shapes-real", "--annotations", path, "--images", real, "-o", tmp_path / "run")
    refused(capsys, *run, reports=True)


@pytest.mark.parametrize("name", corpus.pictures())
def test_pictures_to_score(name, tmp_path, sentinel, capsys):
    (tmp_path / "toy").mkdir()
    toy = write_benchmark(tmp_path / "toy")
    fields = yaml.safe_load(toy.read_text()) | {"evaluators": {}, "metrics": []}
    (tmp_path / "toy" / "toy-box.yaml").write_text(yaml.safe_dump(fields))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for key in range(11, 16):
        (folder / f"{key}.png").write_bytes(corpus.pictures()[name])
    refused(capsys, "score", folder, "--benchmark", toy, "-o", tmp_path / "run", reports=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", corpus.pictures())
def test_pictures_as_real_images_and_as_a_model(name, tmp_path, sentinel, capsys):
    toy = write_benchmark(tmp_path)
    fields = yaml.safe_load(toy.read_text()) | {"evaluators": {}, "metrics": []}
    toy.write_text(yaml.safe_dump(fields))
    for path in (tmp_path / "real").iterdir():
        path.write_bytes(corpus.pictures()[name])
    run = ("run", toy, "-o", tmp_path / "run")
    refused(capsys, *run, "--model", "image-folder", "--checkpoint", tmp_path / "real", reports=True)
    refused(capsys, *run, "--model", "real-images", reports=True)
    assert not list((tmp_path / "run").rglob("*.png"))
    assert main(["validate", str(tmp_path / "instances.json"), "--images", str(tmp_path / "real")]) != 0
    assert "11.png" in "".join(capsys.readouterr())


def test_pictures_in_a_run_folder(tmp_path, count, sentinel):
    """Those that are none are made again; drawing again says that they cannot be compared."""
    for name, content in {**corpus.pictures(), "large": corpus._png(9_000, 9_000)}.items():
        run = RunFolder(tmp_path / name)
        run.prepare()
        (run.images / "a.png").write_bytes(content)
        assert not run.has_image("a", 48)
        with pytest.raises(UNREADABLE):
            run.pictures.open("a")
        said = against_picture(Image.new("RGB", (48, 48)), content, "a.png")
        assert "cannot be read" in said or "another size" in said
        count("hostile files")


def test_html_in_captions_is_text_in_the_report(tmp_path, sentinel, capsys):
    content = corpus.instances()
    content["categories"][0]["name"] = "triangle"
    marked = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    captions = {
        "images": content["images"],
        "annotations": [{"id": 1, "image_id": 1, "caption": marked}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "real").mkdir()
    data = ("--annotations", tmp_path / "instances.json", "--captions", tmp_path / "captions.json")
    command = (
        "run",
        "shapes-box",
        "--model",
        "text-only",
        "--num-inference-steps",
        "1",
        "--features",
        "none",
    )
    assert main([str(one) for one in (*command, *data, "-o", tmp_path / "run")]) == 0
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
