from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from instbench.execution.draw import DrawSettings, draw
from instbench.execution.draw_changes import against_picture, changes_sheet, measure_changes
from instbench.execution.draw_source import from_file
from instbench.execution.session import Session
from instbench.layouts.editing import apply_edits, parse_edit
from instbench.layouts.handwritten import layout_from_object
from instbench.layouts.types import Condition
from tests.instbench.fakes import CANVAS

SHORT = {
    "caption": "A cat and a dog.",
    "units": "pixels",
    "width": 40,
    "height": 40,
    "instances": [
        {"phrase": "a cat", "category": "cat", "box": [0, 0, 10, 10]},
        {"phrase": "a dog", "category": "dog", "box": [20, 20, 40, 40]},
    ],
}


def edited(*texts: str):
    return apply_edits(layout_from_object(SHORT), map(parse_edit, texts), frozenset({Condition.BOX}))


def picture(*squares: tuple[int, int, int]) -> Image.Image:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    for x, y, side in squares:
        pixels[y : y + side, x : x + side] = 200
    return Image.fromarray(pixels)


def test_differences_by_hand():
    before, after = picture((0, 0, 10), (20, 20, 20)), picture((10, 0, 10), (20, 20, 20), (0, 30, 10))
    found = measure_changes([before], [after], edited("move 0 0.25,0.0"))
    cat, dog = found.instances
    assert (cat.verbs, cat.difference) == (("moved",), 200.0)
    assert (dog.verbs, dog.difference) == ((), 0.0)
    assert found.inside == 200.0
    assert found.outside == pytest.approx(200.0 * 100 / 1400, abs=1e-4)
    assert found.whole == pytest.approx(200.0 * 300 / 1600)


def test_pairs_are_averaged_and_no_change_has_no_inside():
    one, two = picture(), picture((0, 0, 40))
    found = measure_changes([one, one], [one, two], edited('caption "x"'))
    assert (found.inside, found.outside, found.whole) == (None, 100.0, 100.0)


def test_the_sheet_has_three_panels():
    sheet = changes_sheet(picture((0, 0, 10)), picture((10, 0, 10)), edited("move 0 0.25,0.0", "remove 1"))
    assert sheet.width > 3 * 120
    assert np.asarray(sheet).std() > 10


def test_edits_are_drawn_from_the_same_noise(tmp_path, fakes):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SHORT))
    settings = DrawSettings(images=2, model="fake", canvas_size=CANVAS)
    edits = [parse_edit("move 0 0.25,0.0"), parse_edit('add "a cat" 0.0,0.5,0.25,0.75')]
    drawing = draw(from_file(path), tmp_path / "out", Session(), settings, edits)
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(
        [f"000{n}{kind}.png" for n in (1, 2) for kind in ("", "-asked", "-before", "-changes")]
        + ["draw.json", "layout.json", "layout-before.json"]
    )
    seeds = [request.seed for request in fakes.generator.requests]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert drawing.changes is not None
    assert drawing.changes.instances[1].difference == 0.0
    assert drawing.changes.outside == 0.0
    assert (drawing.changes.inside or 0.0) > 10.0
    record = json.loads((tmp_path / "out" / "draw.json").read_text())
    assert record["edits"] == ["move 0 0.25,0.0", 'add "a cat" 0.0,0.5,0.25,0.75']
    assert record["changes"]["instances"][2]["verbs"] == ["added"]

    # The next round starts from the edited layout and the same noise.
    last = drawing.images[0]
    again = from_file(tmp_path / "out" / "draw.json")
    draw(again, tmp_path / "next", Session(), edits=[parse_edit("remove 1")])
    with Image.open(tmp_path / "next" / "0001-before.png") as picture:
        assert (np.asarray(picture) == np.asarray(last.image)).all()


def test_a_picture_against_a_file(tmp_path):
    path = tmp_path / "run.png"
    picture((0, 0, 10)).save(path)
    png = path.read_bytes()
    assert against_picture(picture((0, 0, 10)), png, "run.png") == "same pixels as run.png"
    assert "by at most 200 of 255, in 6.25% of the pixels" in against_picture(picture(), png, "run.png")
    assert "another size, 40x40" in against_picture(picture().resize((8, 8)), png, "run.png")
    assert "cannot be read" in against_picture(picture(), b"no picture", "run.png")
