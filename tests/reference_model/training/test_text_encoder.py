from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextModel

from reference_model.training.data import read_folder
from reference_model.training.text_data import CATEGORY, TextWorld
from reference_model.training.text_encoder import (
    TextEncoderRecipe,
    TextObjective,
    build_text_encoder,
    train_text_encoder,
)
from reference_model.training.tokenizer import folder_texts, train_tokenizer

_TINY = TextEncoderRecipe(
    hidden=32, heads=2, intermediate=64, phrases=6, captions=4, noise_texts=2, steps=6, warmup=2, holdout=2
)


@pytest.fixture
def world(training_folder: Path) -> TextWorld:
    return TextWorld([read_folder(training_folder)])


def test_words_come_from_the_folder(world: TextWorld):
    assert world.kinds[CATEGORY] == ("circle", "square")
    assert world.kinds["texture"] == ("plain", "striped")
    assert {"background", "circle", "circle+red", "2xcircle"} <= set(world.units)


def test_captions_are_labelled_phrase_by_phrase(world: TextWorld):
    for scene in world.scenes:
        for position, text in enumerate(scene.captions):
            item = world.caption(scene, position)
            assert [text[span.start : span.end] for span in item.phrases] == [
                record.phrases[position] for record in scene.objects
            ]
            full = item.phrases[0].mentions
            assert len(full) == {0: 3, 1: 2, 2: 2, 3: 1}[position]


def test_token_labels_tell_what_was_said_so_far(world: TextWorld, training_folder: Path):
    tokenizer = train_tokenizer(folder_texts([training_folder]))
    objective = TextObjective(build_text_encoder(_TINY, tokenizer), tokenizer, world, _TINY)
    scene = world.scenes[0]
    item = world.caption(scene, 0)
    _, _, offsets = objective.encode([item.text])
    labels = objective._token_labels([item], offsets)
    first = scene.objects[0]
    color = world.kinds["color"].index(first.attributes["color"]) + 1
    category = world.kinds[CATEGORY].index(first.category) + 1
    # <start> a COLOR TEXTURE CATEGORY and ...
    assert labels["color"][0, :6].tolist() == [-100, -100, color, color, color, -100]
    assert labels[CATEGORY][0, :6].tolist() == [-100, -100, 0, 0, category, -100]


def test_phrases_keep_their_labels_behind_prefixes(world: TextWorld):
    rng = np.random.default_rng(0)
    for _ in range(50):
        item = world.phrase("red striped circle", rng)
        assert item.text.endswith("red striped circle")
        assert {mention.kind for mention in item.phrases[0].mentions} == {CATEGORY, "color", "texture"}
    assert world.noise(rng).phrases[0].mentions == ()


def test_interrupted_equals_uninterrupted_and_the_folder_loads(training_folder: Path, tmp_path: Path):
    tokenizer = train_tokenizer(folder_texts([training_folder]))
    whole = train_text_encoder([training_folder], tokenizer, tmp_path / "whole", _TINY)
    assert whole.complete
    part = train_text_encoder([training_folder], tokenizer, tmp_path / "parts", _TINY, stop_at=2)
    assert not part.complete
    assert not (tmp_path / "parts" / "config.json").exists()
    train_text_encoder([training_folder], tokenizer, tmp_path / "parts", _TINY)
    first, second = (CLIPTextModel.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    ids = torch.tensor([tokenizer("a red circle").input_ids])
    pooled = first(input_ids=ids).pooler_output
    assert pooled.shape == (1, 32)
    assert pooled.std().item() == pytest.approx(1.0, abs=0.05)
    recipe = json.loads((tmp_path / "whole" / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["steps"] == 6
    assert recipe["recipe"]["hidden"] == 32


def test_a_little_training_reads_words_back(training_folder: Path, tmp_path: Path):
    tokenizer = train_tokenizer(folder_texts([training_folder]))
    recipe = replace(_TINY, steps=80, lr=5e-3, holdout=0)
    train_text_encoder([training_folder], tokenizer, tmp_path, recipe)
    figures = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))["figures"]
    assert figures["phrase_color_accuracy"] > 0.9
    assert figures["phrase_category_accuracy"] > 0.9
    assert figures["phrase_cosine_max"] < 0.99


def test_a_folder_without_texts_is_refused(training_folder: Path):
    (training_folder / "captions.json").unlink()
    with pytest.raises(ValueError, match=r"captions\.json must hold captions"):
        TextWorld([read_folder(training_folder)])


def test_a_hold_out_that_leaves_nothing_is_refused(training_folder: Path, tmp_path: Path):
    tokenizer = train_tokenizer(["red"])
    with pytest.raises(ValueError, match="hold-out of 50"):
        train_text_encoder([training_folder], tokenizer, tmp_path, replace(_TINY, holdout=50))
