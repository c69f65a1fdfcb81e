"""References of FID: kept once, refused if they are others."""

import os
from pathlib import Path

import pytest

from instbench import api
from instbench.errors import InputError
from metrics import load_reference, make_reference, save_reference
from tests.instbench.fakes import write_benchmark, write_coco


def run(tmp_path, name, annotations):
    toy = str(write_benchmark(tmp_path / "toy", metrics=[{"name": "fid"}, {"name": "kid"}]))
    images = annotations.parent / "real"
    [outcome] = api.run(toy, tmp_path / name, model="fake", annotations=annotations, images=images)
    assert outcome.results is not None
    return outcome.results.metrics


@pytest.fixture
def annotations(tmp_path):
    (tmp_path / "toy").mkdir()
    return write_coco(tmp_path / "own", images=4)


def references():
    return list((Path(os.environ["INSTBENCH_DATA"]) / "references").glob("*"))


def test_photographs_are_looked_at_once(tmp_path, annotations, fakes):
    first = run(tmp_path, "a", annotations)
    [path] = references()
    stored = load_reference(path)
    assert stored.facts == first["fid"].details["reference"]
    assert stored.statistics.count == 4
    seen = []
    original = fakes.features.features
    fakes.features.features = lambda images: (seen.append(len(images)), original(images))[1]
    second = run(tmp_path, "b", annotations)
    assert sum(seen) == 4  # the generated ones alone
    assert second["fid"].value == first["fid"].value
    assert second["kid"].value == pytest.approx(first["kid"].value)
    assert second["kid"].details["subset_size"] == 4


def test_another_photograph_is_another_reference(tmp_path, annotations, fakes):
    run(tmp_path, "a", annotations)
    picture = next((annotations.parent / "real").iterdir())
    picture.write_bytes(picture.read_bytes() + b"\0")
    run(tmp_path, "b", annotations)
    assert len(references()) == 2


def test_a_reference_that_says_something_else_is_refused(tmp_path, annotations, fakes):
    run(tmp_path, "a", annotations)
    [path] = references()
    stored = load_reference(path)
    save_reference(make_reference(stored.features, {**stored.facts, "canvas_size": 512}), path)
    with pytest.raises(InputError, match=r"another reference \(canvas_size is 512, needed \d+\)"):
        run(tmp_path, "b", annotations)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read as a reference"):
        run(tmp_path, "c", annotations)
