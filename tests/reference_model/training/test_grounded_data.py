"""Training samples show what their rule says, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instbench.datasets.shapes import export_coco
from reference_model.instance_masks import cells_from_boxes, cells_from_masks, cells_from_points
from reference_model.training.grounded_data import GroundedDataset
from reference_model.training.locations import Locations, build_location_cache
from reference_model.training.rules import FORMATS, FormatRules

SLOTS, POINTS = 4, 64
NOTHING_SPECIAL = FormatRules(0.0, 0.0, 0.0, 0.0, 0.0)
KEYS = {"box": "boxes", "point": "points", "scribble": "scribbles", "mask": "polygons"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export_coco("shapes", "train", 6, tmp_path_factory.mktemp("data") / "shapes")


def dataset(folder, rules, latents=6, radius=None, segment_size=64):
    locations = Locations.load(build_location_cache(folder))
    phrases, captions = len(locations.phrases), len(locations.captions)
    states = np.arange(captions, dtype=np.float16)[:, None, None] * np.ones((1, 77, 8), np.float16)
    return GroundedDataset(
        locations,
        np.ones((latents, 8, 16, 16), np.float16),
        torch.ones(phrases, 8),
        states,
        max_instances=SLOTS,
        num_mask_points=POINTS,
        segment_size=segment_size,
        local_mask_radius=radius,
        rules=rules,
    )


def batch(data, seed=0, size=24):
    rng = np.random.default_rng(seed)
    return data.batch(rng.integers(len(data), size=size), rng)


def test_shapes_and_repeatability(folder):
    data = dataset(folder, FormatRules())
    first, again = batch(data, 3), batch(data, 3)
    assert first.latents.shape == (24, 8, 16, 16)
    assert first.context.shape == (24, 77, 8)
    assert first.instance_masks.shape == (24, SLOTS, 16, 16)
    assert first.instance_masks.dtype == torch.bool
    assert first.grounding["polygons"].shape == (24, SLOTS, 2 * POINTS)
    assert first.grounding["segs"].shape == (24, SLOTS, 64, 64)
    for name in ("boxes", "scribbles", "segs", "points", "polygons", "masks", "positive_embeddings"):
        assert first.grounding[name].dtype == torch.float32
        assert torch.equal(first.grounding[name], again.grounding[name]), name
    assert torch.equal(first.context, again.context)
    assert torch.equal(first.instance_masks, again.instance_masks)
    assert not torch.equal(first.grounding["masks"], batch(data, 4).grounding["masks"])


def test_unconditional_samples_show_nothing(folder):
    shown = batch(dataset(folder, replace(NOTHING_SPECIAL, unconditional=1.0)))
    assert shown.grounding["masks"].sum() == 0
    assert shown.context.abs().sum() == 0
    assert not shown.instance_masks.any()


def test_text_only_and_no_caption_are_opposites(folder):
    text = batch(dataset(folder, replace(NOTHING_SPECIAL, text_only=1.0)))
    assert text.grounding["masks"].sum() == 0
    assert (text.context[:, 0, 0] > 0).all()
    silent = batch(dataset(folder, replace(NOTHING_SPECIAL, no_caption=1.0)))
    assert (silent.grounding["masks"].sum(dim=1) > 0).all()
    assert silent.context.abs().sum() == 0


@pytest.mark.parametrize("name", FORMATS)
def test_one_format_alone_withholds_the_others(folder, name):
    weights = tuple(float(other == name) for other in FORMATS)
    grounding = batch(dataset(folder, replace(NOTHING_SPECIAL, keep_only=weights))).grounding
    for other in FORMATS:
        shown = other == name
        assert bool(grounding["format_masks"][other].any()) == shown
        assert bool(grounding[KEYS[other]].any()) == shown
    assert bool(grounding["segs"].any()) == (name == "mask")


def test_random_subsets_are_never_empty(folder):
    grounding = batch(dataset(folder, replace(NOTHING_SPECIAL, random_subset=1.0))).grounding
    counts = sum(grounding["format_masks"][name] for name in FORMATS)
    assert torch.equal(counts > 0, grounding["masks"] > 0)
    assert len(counts[counts > 0].unique()) > 1


def test_instance_masks_follow_the_most_exact_format(folder):
    boxes = batch(dataset(folder, replace(NOTHING_SPECIAL, keep_only=(1.0, 0.0, 0.0, 0.0))))
    filled = boxes.grounding["masks"] > 0
    assert torch.equal(
        boxes.instance_masks, cells_from_boxes(boxes.grounding["boxes"], 16, 16) & filled[..., None, None]
    )
    everything = batch(dataset(folder, replace(NOTHING_SPECIAL, all_formats=1.0)))
    coarse = cells_from_masks(everything.grounding["segs"], 16, 16)
    assert (everything.instance_masks | ~coarse).all(), (
        "the 64 px masks lie inside the cells of the full ones"
    )
    points = replace(NOTHING_SPECIAL, keep_only=(0.0, 1.0, 0.0, 0.0))
    local = batch(dataset(folder, points, radius={"point": 0.1, "scribble": 0.1})).instance_masks
    everywhere = batch(dataset(folder, points)).instance_masks
    assert everywhere.flatten(2).all(dim=-1).any()
    assert 0 < local.float().sum() < 0.2 * everywhere.float().sum()


def test_each_instance_lies_where_its_best_format_says(folder):
    rules = replace(NOTHING_SPECIAL, random_subset=0.5, keep_only=(0.0, 1.0, 0.0, 0.0))
    side = Locations.load(build_location_cache(folder)).size[0]
    radius = {"point": 0.15, "scribble": 0.08}
    shown = batch(dataset(folder, rules, radius=radius, segment_size=side), seed=1, size=12)
    grounding, used = shown.grounding, set()
    for row, slot in torch.nonzero(torch.ones(12, SLOTS)).tolist():
        here = {name for name in FORMATS if grounding["format_masks"][name][row, slot] > 0}
        values = {name: grounding[KEYS[name]][row, slot] for name in FORMATS}
        assert all(values[name].any() == (name in here) for name in FORMATS)
        expected = torch.zeros(16, 16, dtype=torch.bool)
        if "mask" in here:
            expected = cells_from_masks(grounding["segs"][row, slot], 16, 16)
        elif "box" in here:
            expected = cells_from_boxes(values["box"], 16, 16)
        elif "scribble" in here:
            expected = cells_from_points(values["scribble"].view(-1, 2), radius["scribble"], 16, 16)
        elif "point" in here:
            expected = cells_from_points(values["point"][None], radius["point"], 16, 16)
        used.add(next((name for name in ("mask", "box", "scribble", "point") if name in here), "none"))
        assert torch.equal(shown.instance_masks[row, slot], expected)
    assert used >= set(FORMATS)


def test_wrong_number_of_latents_is_refused(folder):
    with pytest.raises(ValueError, match="5 latents for 6 images"):
        dataset(folder, FormatRules(), latents=5)
