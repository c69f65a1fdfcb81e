from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instbench import api
from instbench.errors import InputError
from instbench.execution.draw import DrawSettings, draw
from instbench.execution.draw_source import from_file, from_run
from instbench.execution.session import Session
from instbench.generators.base import SamplingSettings
from instbench.layouts.types import Condition
from tests.instbench.fakes import CANVAS, write_benchmark

SHORT = {
    "caption": "A cat and a dog.",
    "units": "relative",
    "instances": [
        {"phrase": "a cat", "category": "cat", "box": [0.1, 0.1, 0.4, 0.4], "point": [0.2, 0.2]},
        {"phrase": "a dog", "category": "dog", "box": [0.5, 0.5, 0.9, 0.9]},
    ],
}
FAKE = DrawSettings(model="fake", canvas_size=CANVAS)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SHORT))
    return path


@pytest.fixture
def toy_run(tmp_path: Path, fakes) -> Path:
    folder = tmp_path / "run"
    api.generate(str(write_benchmark(tmp_path / "toy")), folder, model="fake", seed=5)
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_pictures_overlays_and_records(layout, tmp_path, fakes):
    target = tmp_path / "out"
    drawing = draw(
        from_file(layout), target, Session(), DrawSettings(images=2, model="fake", canvas_size=CANVAS)
    )
    assert sorted(path.name for path in target.iterdir()) == [
        "0001-asked.png",
        "0001.png",
        "0002-asked.png",
        "0002.png",
        "draw.json",
        "layout.json",
    ]
    record = json.loads((target / "draw.json").read_text())
    assert record["conditions"] == ["box", "point"]
    assert record["generator"]["weights_sha256"] == "0" * 64
    assert len({one["seed"] for one in record["images"]}) == 2
    assert pixels(target / "0001.png").shape == (CANVAS, CANVAS, 3)
    assert from_file(target / "layout.json").layout == drawing.layout
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_drawing_is_made_again_from_its_draw_json(layout, tmp_path, fakes):
    settings = DrawSettings(
        images=2, model="fake", canvas_size=CANVAS, seed=9, sampling=SamplingSettings(num_inference_steps=7)
    )
    draw(from_file(layout), tmp_path / "a", Session(), settings)
    draw(from_file(tmp_path / "a" / "draw.json"), tmp_path / "b", Session())
    first, second = (json.loads((tmp_path / name / "draw.json").read_text()) for name in "ab")
    assert {**second, "origin": first["origin"]} == first
    for name in ("0001.png", "0002.png", "0002-asked.png", "layout.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_image_of_a_run_is_made_again(toy_run, tmp_path, fakes):
    key = sorted(path.stem for path in (toy_run / "images").iterdir())[2]
    drawing = draw(from_run(f"{toy_run}/{key}"), tmp_path / "out", Session())
    assert (tmp_path / "out" / "0001.png").read_bytes() == (toy_run / "images" / f"{key}.png").read_bytes()
    assert drawing.record["conditions"] == ["box"]
    assert drawing.shown.instances[0].point_xy is None
    assert drawing.layout.instances[0].point_xy is not None
    by_path = from_run(f"{toy_run}/images/{key}.png")
    assert by_path.image_seed(0) == drawing.images[0].seed
    assert by_path.image_seed(1) != by_path.image_seed(0)


@pytest.mark.parametrize("address", ["nothing", "../secret", "..", "000000000011/../../x", ""])
def test_a_key_that_no_layout_has_is_refused(toy_run, address):
    with pytest.raises(InputError):
        from_run(f"{toy_run}/{address}")


def test_other_files_are_never_overwritten(layout, tmp_path, fakes):
    target = tmp_path / "out"
    target.mkdir()
    (target / "0001.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds files that are no drawing \(0001.png\)"):
        draw(from_file(layout), target, Session(), FAKE)
    assert (target / "0001.png").read_bytes() == b"mine"
    assert not fakes.generator.made
    with pytest.raises(InputError, match="is a file"):
        draw(from_file(layout), layout, Session(), FAKE)


def test_an_earlier_drawing_is_replaced_and_strangers_stay(layout, tmp_path, fakes):
    target = tmp_path / "out"
    draw(from_file(layout), target, Session(), DrawSettings(images=3, model="fake", canvas_size=CANVAS))
    (target / "notes.txt").write_text("mine")
    draw(from_file(layout), target, Session(), FAKE)
    assert sorted(path.name for path in target.iterdir()) == [
        "0001-asked.png",
        "0001.png",
        "draw.json",
        "layout.json",
        "notes.txt",
    ]


def test_what_the_model_cannot_be_shown_is_refused(layout, tmp_path, fakes):
    fakes.generator.conditions = frozenset({Condition.BOX})
    with pytest.raises(InputError, match=r"cannot be shown point; add --conditions box"):
        draw(from_file(layout), tmp_path / "out", Session(), FAKE)
    boxes = DrawSettings(model="fake", canvas_size=CANVAS, conditions=frozenset({Condition.BOX}))
    assert draw(from_file(layout), tmp_path / "out", Session(), boxes).shown.instances[0].point_xy is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DrawSettings(model="fake", conditions=frozenset({Condition.MASK})), "no instance has one"),
        (DrawSettings(model="fake", conditions=frozenset({Condition.POINT})), r"instances\.1: has no point"),
        (DrawSettings(model="fake", images=1000), "--images 1000"),
        (DrawSettings(model="fake", canvas_size=9999), "--size 9999"),
        (DrawSettings(model="real-images"), "makes no picture of a layout"),
        (
            DrawSettings(model="fake", sampling=SamplingSettings(guidance_scale=float("nan"))),
            "--guidance-scale",
        ),
    ],
)
def test_wrong_settings_are_refused(layout, tmp_path, fakes, settings, message):
    with pytest.raises(InputError, match=message):
        draw(from_file(layout), tmp_path / "out", Session(), settings)
    assert not (tmp_path / "out").exists()


def test_a_damaged_drawing_is_refused(layout, tmp_path, fakes):
    draw(from_file(layout), tmp_path / "out", Session(), FAKE)
    path = tmp_path / "out" / "draw.json"
    record = json.loads(path.read_text())
    for field in ("seeds", "conditions", "sampling", "layout", "schema_version"):
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps({name: value for name, value in record.items() if name != field}))
        with pytest.raises(InputError, match=r"bad\.json: "):
            from_file(bad)


@pytest.mark.slow
def test_the_shipped_model_makes_the_same_pixels_as_in_a_run(tmp_path):
    sampling = SamplingSettings(num_inference_steps=2)
    session = Session(device="cpu")
    api.generate("shapes-box", tmp_path / "run", limit=1, sampling=sampling, session=session)
    (picture,) = (tmp_path / "run" / "images").iterdir()
    draw(from_run(f"{tmp_path / 'run'}/{picture.stem}"), tmp_path / "out", session)
    assert (tmp_path / "out" / "0001.png").read_bytes() == picture.read_bytes()
