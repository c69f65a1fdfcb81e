"""The COCO benchmarks by name, on a small data home and with stand-ins for the networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from instbench import api
from instbench.benchmarks import load_benchmark
from instbench.registry import DETECTORS, FEATURES, IMAGE_TEXT, Entry, Registry
from tests.instbench.fakes import FakeDetector, FakeFeatures, FakeGenerator, FakeImageText, write_coco

STRICT = ("box", "mask", "point", "scribble", "hybrid", "color", "texture")
PAPER = ("box", "mask", "point", "scribble", "color", "texture")


@pytest.fixture
def coco(tmp_path, monkeypatch, fakes) -> Iterator[FakeGenerator]:
    """A small coco-val2017 in the data home; fakes under the names that the benchmarks use."""
    folder = tmp_path / "home" / "coco-val2017"
    made = write_coco(tmp_path / "made", images=3)
    (folder / "annotations").mkdir(parents=True)
    shutil.copy(made, folder / "annotations" / "instances_val2017.json")
    shutil.copy(made.parent / "captions.json", folder / "annotations" / "captions_val2017.json")
    shutil.copytree(made.parent / "real", folder / "val2017")
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path / "home"))
    named: tuple[tuple[Registry, str, object], ...] = (
        (DETECTORS, "yolov8m-seg", FakeDetector(threshold=60)),
        (IMAGE_TEXT, "ViT-L-14/laion2b_s32b_b82k", FakeImageText()),
        (FEATURES, "inception", FakeFeatures()),
    )
    before = [registry.get(name) for registry, name, _ in named]
    for registry, name, stand_in in named:
        registry.add(Entry(name, "stand-in", lambda stand_in=stand_in: stand_in), replace=True)
    yield fakes.generator
    for (registry, _, _), entry in zip(named, before, strict=True):
        registry.add(entry, replace=True)


@pytest.mark.parametrize("kind", [*(f"{one} strict" for one in STRICT), *(f"{one} paper" for one in PAPER)])
def test_every_benchmark_runs_to_its_numbers(tmp_path, coco, kind):
    kind, edition = kind.split()
    name = f"coco-{kind}"
    benchmark = load_benchmark(name, edition)
    [outcome] = api.run(name, tmp_path / "run", model="fake", edition=edition, limit=2)
    assert outcome.results is not None
    assert list(outcome.results.metrics) == [one.name for one in benchmark.metrics]
    assert (outcome.results.edition, outcome.results.counts["instances_requested"]) == (edition, 4)
    shown = set(benchmark.conditions)
    for request in coco.requests:
        assert request.canvas_size == 512
        assert set(request.conditions) == shown
        for one in request.layout.instances:
            given = {
                "box": one.box_xyxy,
                "mask": one.mask,
                "point": one.point_xy,
                "scribble": one.scribble_xy,
            }
            seen = {format_ for format_, value in given.items() if value is not None}
            assert seen == ({one.condition} if benchmark.hybrid else shown)
    if edition == "paper":
        sampling = json.loads((tmp_path / "run" / "run.json").read_text())["benchmark"]["sampling"]
        assert (sampling["num_inference_steps"], sampling["guidance_scale"]) == (50, 7.5)
        assert (sampling["alpha"], sampling["mis"]) == (1.0, 0.36)
        assert sampling["negative_prompt"].startswith("cartoon style, painting style, longbody, lowres")


def test_the_ceiling_reaches_the_top(tmp_path, coco):
    [outcome] = api.run("coco-real", tmp_path / "run")
    assert outcome.results is not None
    values = {name: record.value for name, record in outcome.results.metrics.items()}
    assert values["box_ap50"] == values["point_hit_rate"] == pytest.approx(1.0)
    assert values["mask_iou"] > 0.9


def test_colours_and_textures_go_by_annotation_id(tmp_path, coco):
    api.run("coco-color", tmp_path / "run", model="fake", limit=1)
    [request] = coco.requests
    assert [one.phrase for one in request.layout.instances] == ["pink cat", "purple dog"]  # 110 and 111 mod 8
    assert request.layout.caption == "A cat and a dog. pink cat, purple dog"
