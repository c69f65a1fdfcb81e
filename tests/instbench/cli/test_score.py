"""`instbench score` on images made elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from instbench.cli.main import main
from instbench.runs.store import RunFolder
from tests.instbench.fakes import CANVAS, FakeGenerator, write_benchmark


class Dark(FakeGenerator):
    """Draws on a dark ground, unlike that of the originals."""

    def draw(self, request):
        image = super().draw(request)
        grey = image.getpixel((0, 0))[0]
        return image.point(lambda value: 40 if value == grey else value)


@pytest.fixture
def toy(tmp_path) -> str:
    (tmp_path / "toy").mkdir()
    return str(write_benchmark(tmp_path / "toy"))


@pytest.fixture
def images(toy, tmp_path, fakes) -> Path:
    """What the stand-in model draws, as a folder of its own."""
    fakes.generator = Dark()
    main(["generate", toy, "--model", "fake", "-o", str(tmp_path / "made")])
    folder = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "made" / "images", folder)
    return folder


def score(images: Path, toy: str, tmp_path: Path, *options: str) -> int:
    return main(["score", str(images), "--benchmark", toy, "-o", str(tmp_path / "run"), *options])


def test_images_made_elsewhere_get_the_numbers_of_the_run_that_made_them(images, toy, tmp_path, capsys):
    main(["run", toy, "--model", "fake", "-o", str(tmp_path / "made")])
    assert score(images, toy, tmp_path, "--name", "mine") == 0
    ours, theirs = (RunFolder(tmp_path / name).read_results() for name in ("run", "made"))
    assert ours.metrics == theirs.metrics
    assert ours.model == "mine"
    found = RunFolder(tmp_path / "run").read_run().images_elsewhere
    assert found is not None
    assert (found["images"], found["missing"], found["real_images"]["compared"]) == (5, [], 5)
    assert score(images, toy, tmp_path, "--name", "mine") == 0
    assert "0 images made, 5 kept" in capsys.readouterr().out


def test_the_report_lists_everything_and_the_exit_code_is_2(images, toy, tmp_path, capsys):
    (images / "000000000011.png").unlink()
    (images / "000000000012.png").write_bytes(b"\x89PNG broken")
    with Image.open(images / "000000000013.png") as image:
        large = image.resize((64, 64))
    large.save(images / "000000000013.png")
    large.save(images / "stranger.png")
    assert score(images, toy, tmp_path) == 2
    report = capsys.readouterr().err
    for line in (
        "missing     000000000011.png",
        "unreadable  000000000012.png: ",
        "wrong size  000000000013.png: 64x64, asked 48x48",
        "extra       stranger.png",
        "error: ",
    ):
        assert line in report
    assert not (tmp_path / "run").exists()
    assert score(images, toy, tmp_path, "--allow-missing") == 2
    assert score(images, toy, tmp_path, "--resize") == 2
    assert score(images, toy, tmp_path, "--allow-missing", "--resize") == 0
    record = RunFolder(tmp_path / "run").read_run()
    assert record.counts == {"images": 5, "images_failed": 0, "images_missing": 2}
    assert record.status == "success"
    assert record.images_elsewhere["extra"] == ["stranger.png"]


def test_missing_images_are_misses_and_stay_so_when_scored_again(images, toy, tmp_path, capsys):
    (images / "000000000011.png").unlink()
    assert score(images, toy, tmp_path, "--allow-missing") == 0
    assert "1 missing (misses)" in capsys.readouterr().out
    before = RunFolder(tmp_path / "run").read_results()
    hits = before.metrics["point_hit_rate"]
    assert (hits.value, hits.n_scored, hits.n_unscored) == (pytest.approx(0.8), 10, 0)
    assert before.metrics["fid"].reasons == {"no image": 1}
    assert before.counts["images_missing"] == 1
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert rows[rows["image_key"] == "000000000011"]["hit"].eq(False).all()
    assert main(["score", str(tmp_path / "run")]) == 0
    assert RunFolder(tmp_path / "run").read_results() == before
    (tmp_path / "run" / "images" / "000000000012.png").unlink()
    assert main(["score", str(tmp_path / "run")]) == 1


@pytest.mark.parametrize("how", ["the files", "squashed"])
def test_the_real_images_are_refused_unless_allowed(toy, tmp_path, fakes, capsys, how):
    folder = tmp_path / "toy" / "real"
    options = ["--resize"]
    if how == "squashed":
        shutil.copytree(folder, tmp_path / "squashed")
        folder = tmp_path / "squashed"
        for path in folder.iterdir():
            with Image.open(path) as image:
                image.convert("RGB").resize((CANVAS, CANVAS), Image.Resampling.BICUBIC).save(path)
        options = []
    assert score(folder, toy, tmp_path, *options) == 2
    assert "holds the real images of toy-box (5 of 5 images identical" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert score(folder, toy, tmp_path, *options, "--allow-real") == 0
    assert "scored all the same" in capsys.readouterr().err
    record = RunFolder(tmp_path / "run").read_run()
    assert record.images_elsewhere["allow_real"] is True
    assert record.identity["generator"]["real_images"] == "allowed"


def test_run_with_an_image_folder_checks_it_the_same_way(images, toy, tmp_path, capsys):
    arguments = [
        "run",
        toy,
        "--model",
        "image-folder",
        "--checkpoint",
        str(images),
        "-o",
        str(tmp_path / "run"),
    ]
    (images / "000000000011.png").unlink()
    assert main(arguments) == 2
    assert "missing     000000000011.png" in capsys.readouterr().err
    assert main([*arguments[:4], "--checkpoint", str(tmp_path / "toy" / "real"), *arguments[-2:]]) == 2
    assert "holds the real images" in capsys.readouterr().err


def test_a_dry_run_checks_and_writes_nothing(images, toy, tmp_path, capsys):
    assert score(images, toy, tmp_path, "--dry-run", "--json") == 0
    [facts] = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["images_to_make"]) == (5, 5)
    assert not (tmp_path / "run").exists()


def test_a_slice_leaves_the_other_images_alone(images, toy, tmp_path):
    assert score(images, toy, tmp_path, "--limit", "2") == 0
    assert RunFolder(tmp_path / "run").read_results().counts["images"] == 2


def test_own_data_with_names_of_its_own(images, toy, tmp_path):
    data = tmp_path / "toy"
    records = json.loads((data / "instances.json").read_text())
    for image in records["images"]:
        image["file_name"] = f"photo-{image['id']}.jpg"
    (tmp_path / "own.json").write_text(json.dumps(records))
    for path in images.iterdir():
        path.rename(images / f"photo-{int(path.stem)}.png")
    own = ["--annotations", str(tmp_path / "own.json"), "--captions", str(data / "captions.json")]
    assert score(images, toy, tmp_path, *own) == 0
    assert RunFolder(tmp_path / "run").read_results().benchmark == "toy-box@custom"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "elsewhere"], "add --benchmark B -o DIR"),
        (["score", "elsewhere", "--allow-real"], "--allow-real is for images made elsewhere"),
        (["score", "elsewhere", "--edition", "paper"], "--edition is for images made elsewhere"),
        (["score", "elsewhere", "--benchmark", "TOY"], "-o DIR is missing"),
        (["score", "made", "--benchmark", "TOY", "-o", "run"], "is a run, which knows its benchmark"),
        (["score", "toy", "--benchmark", "TOY", "-o", "run"], "holds no image"),
        (
            ["score", "elsewhere", "--benchmark", "TOY", "-o", "run", "--captions", "x"],
            "--captions and --images",
        ),
        (["score", "elsewhere", "--benchmark", "TOY", "-o", "toy"], "holds files that are no run"),
    ],
)
def test_wrong_uses_are_one_line(images, toy, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([toy if word == "TOY" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err
