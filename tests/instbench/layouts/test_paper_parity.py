"""The paper edition against values recorded from the published scripts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from instbench.execution.crops import attribute_labels, attribute_prompts
from instbench.layouts import from_coco
from instbench.layouts.locations import nearest_resize
from instbench.layouts.published import SEGMENT_SIZE, as_published
from instbench.layouts.rle import decode
from instbench.layouts.types import Layout

FIXTURES = Path(__file__).parent / "fixtures"
TRUTH = Path(__file__).parents[2] / "metrics" / "fixtures" / "paper_gt.json"
WORDS = json.loads((FIXTURES / "paper_words.json").read_text())
RECORDED = load_file(FIXTURES / "paper_layouts.safetensors")
SEEDS = {name: WORDS[name] for name in ("numpy_seed", "python_seed")}


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    return from_coco(TRUTH, edition="paper", **SEEDS)


def test_prompts_name_every_annotation(layouts: list[Layout]) -> None:
    assert {layout.image_key: layout.caption for layout in layouts} == WORDS["prompts"]
    assert max(len(layout.requested) for layout in layouts) == 33


def test_captions_come_first_and_nothing_separates_them_from_the_names() -> None:
    ids = [int(key) for key in WORDS["prompts"]]
    texts = {"annotations": [{"id": n, "image_id": i, "caption": f"Image {i}."} for n, i in enumerate(ids)]}
    for layout in from_coco(TRUTH, texts, edition="paper"):
        assert layout.caption == f"Image {layout.image_id}.{WORDS['prompts'][layout.image_key]}"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("locations", "box_xyxy"),
        ("points", "point_xy"),
        ("scribbles", "scribble_xy"),
        ("polygons", "mask_points_xy"),
    ],
)
def test_locations_are_exactly_the_recorded_ones(layouts: list[Layout], name: str, field: str) -> None:
    compared = 0
    for layout in layouts:
        expected = RECORDED.get(f"{layout.image_key}.{name}")
        if expected is not None:
            shown = as_published(layout).instances
            ours = np.array([np.ravel(getattr(one, field)) for one in shown])
            np.testing.assert_array_equal(ours.astype(np.float32), expected)
            compared += len(shown)
    assert compared == (16 if name == "polygons" else 224)


def test_one_seed_stands_for_both_streams(layouts: list[Layout]) -> None:
    assert WORDS["numpy_seed"] == WORDS["python_seed"]
    assert from_coco(TRUTH, edition="paper", seed=WORDS["numpy_seed"]) == layouts
    streams = np.random.RandomState(WORDS["numpy_seed"]), random.Random(WORDS["python_seed"])
    assert from_coco(TRUTH, edition="paper", numpy_seed=streams[0], python_seed=streams[1]) == layouts
    other = from_coco(TRUTH, edition="paper", numpy_seed=WORDS["numpy_seed"], python_seed=0)
    same = [
        a == b
        for one, two in zip(layouts, other, strict=True)
        for a, b in zip(one.instances, two.instances, strict=True)
    ]
    assert 0 < same.count(False) < 60  # the masks below 128 pixels, whose points are drawn


@pytest.mark.parametrize("attribute", ["color", "texture"])
def test_attribute_phrases_go_by_annotation_id(attribute: str) -> None:
    layouts = from_coco(TRUTH, edition="paper", attribute=attribute)
    phrases = {layout.image_key: [one.phrase for one in as_published(layout).instances] for layout in layouts}
    assert phrases == WORDS[attribute]
    labels = attribute_labels(
        attribute, frozenset(phrase.split()[0] for one in phrases.values() for phrase in one)
    )
    assert attribute_prompts(labels) == WORDS[f"{attribute}_label_prompts"]


def test_segments_have_the_recorded_sizes_and_single_instances_lose_theirs(layouts: list[Layout]) -> None:
    singles = 0
    for layout in layouts:
        shown = as_published(layout).instances
        if not shown:
            continue
        recorded = RECORDED[f"{layout.image_key}.segs_row_sums_total"]
        if len(layout.instances) == 1:
            singles += 1
            # Thirty rows of the image stand where thirty masks should: the first goes to the instance.
            assert recorded[0] == 0
            assert shown[0].mask is None
            continue
        sizes = [
            nearest_resize(decode(one.mask), SEGMENT_SIZE).sum() for one in shown if one.mask is not None
        ]
        np.testing.assert_array_equal(sizes, recorded)
    assert singles == 2
