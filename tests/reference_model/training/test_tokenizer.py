from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from reference_model.training.tokenizer import TokenizerRecipe, folder_texts, main, train_tokenizer

_TEXTS = ["a red striped circle and a blue square", "the red heart"]
_TOKENIZER = train_tokenizer(_TEXTS)


def test_every_word_of_the_texts_is_one_token():
    for text in _TEXTS:
        tokens = _TOKENIZER.convert_ids_to_tokens(_TOKENIZER(text).input_ids)
        assert tokens == ["<|startoftext|>", *(f"{word}</w>" for word in text.split()), "<|endoftext|>"]


def test_training_is_deterministic():
    assert train_tokenizer(_TEXTS[::-1]).get_vocab() == _TOKENIZER.get_vocab()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_encoded_between_the_special_tokens(text):
    ids = _TOKENIZER(text, truncation=True, max_length=77).input_ids
    assert ids[0] == _TOKENIZER.bos_token_id
    assert ids[-1] == _TOKENIZER.eos_token_id
    assert len(ids) <= 77
    special = {"<|startoftext|>", "<|endoftext|>"}
    if not any(word in text for word in special):
        # The unknown token is the end token, so none inside means that nothing was unknown.
        assert _TOKENIZER.eos_token_id not in ids[1:-1]


@given(st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=6))
@settings(deadline=None)
def test_plain_words_round_trip(words):
    text = " ".join(words)
    assert _TOKENIZER.decode(_TOKENIZER(text).input_ids, skip_special_tokens=True) == text


def test_saved_folder_loads_and_pads_to_77(training_folder: Path, tmp_path: Path):
    assert main(["--data", str(training_folder), "-o", str(tmp_path / "tok")]) == 0
    loaded = CLIPTokenizer.from_pretrained(tmp_path / "tok", local_files_only=True)
    assert (tmp_path / "tok" / "recipe.json").is_file()
    assert loaded.model_max_length == 77
    assert len(loaded("red", padding="max_length").input_ids) == 77
    for word in ("red", "striped", "circle", "background"):
        assert len(loaded(word, add_special_tokens=False).input_ids) == 1


def test_folder_texts_hold_phrases_and_captions(training_folder: Path):
    texts = folder_texts([training_folder])
    assert "circle" in texts
    assert any(text.endswith("on a grey background") for text in texts)
    assert texts == sorted(set(texts))


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size 100"):
        train_tokenizer(_TEXTS, TokenizerRecipe(vocab_size=100))
