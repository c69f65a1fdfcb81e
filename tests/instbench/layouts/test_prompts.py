from __future__ import annotations

import pytest

from instbench.layouts import prompts


@pytest.mark.parametrize(
    ("caption", "names", "expected"),
    [
        ("Two cats", ["cat", "cat"], "Two cats. cat, cat"),
        ("Two cats.", ["cat"], "Two cats. cat"),
        ("Really?", ["cat"], "Really? cat"),
        ("", ["cat", "dog"], "cat, dog"),
        ("Nothing here.", [], "Nothing here."),
    ],
)
def test_caption_and_names_become_two_sentences(caption: str, names: list[str], expected: str) -> None:
    assert prompts.join_caption_and_names(caption, names) == expected


def test_rules_of_the_strict_edition() -> None:
    texts = ["A  cat\nsleeps.", "A dog."]
    assert prompts.strict_prompt(texts, ["cat"], "caption", attribute_run=False) == "A cat sleeps."
    assert prompts.strict_prompt(texts, ["cat"], "names", attribute_run=False) == "cat"
    assert prompts.strict_prompt(texts, ["cat"], "caption+names", attribute_run=False) == "A cat sleeps. cat"
    assert prompts.strict_prompt([], ["cat", "dog"], "caption", attribute_run=False) == "cat, dog"


def test_attribute_runs_take_the_shortest_caption_that_names_every_phrase() -> None:
    texts = ["a red striped star on grey", "a red plain star on sage", "a red star on grey", "a star on grey"]
    assert prompts.strict_prompt(texts, ["red star"], "caption", attribute_run=True) == "a red star on grey"
    assert prompts.strict_prompt(texts, ["plain star"], "caption", attribute_run=True) == texts[1]
    joined = prompts.strict_prompt(texts, ["blue star"], "caption", attribute_run=True)
    assert joined == "a red striped star on grey. blue star"


def test_a_phrase_is_named_only_as_whole_words() -> None:
    joined = prompts.strict_prompt(["a red starfish"], ["red star"], "caption", attribute_run=True)
    assert joined == "a red starfish. red star"


def test_paper_prompt_has_no_separator() -> None:
    assert (
        prompts.paper_prompt(["A man rides."], ["person", "horse"], "caption") == "A man rides.person, horse"
    )
    assert prompts.paper_prompt(["A man rides."], ["person"], "names") == "person"
    assert prompts.paper_prompt([], ["person"], "caption") == "person"


def test_attribute_words_follow_the_annotation_id() -> None:
    assert [prompts.attribute_word("color", n) for n in (0, 7, 8, 10)] == ["black", "purple", "black", "red"]
    assert prompts.attribute_word("texture", 3) == "wooden"
