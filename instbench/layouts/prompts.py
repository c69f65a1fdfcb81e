"""Words of a layout: global prompts, instance phrases and attributes.

Rules of the strict edition:

* phrase of an instance: its first own caption if the dataset has any, else the category name;
  in attribute runs ``"<attribute> <category>"``.
* attribute: the dataset's own (``attributes`` of the annotation) if there is one, else
  ``WORDS[annotation_id % 8]``, as published.
* global prompt, by rule: ``caption`` = first caption of the image; ``names`` = the phrases of the
  requested instances, ``"a, b, b"``; ``caption+names`` = both as two sentences, ``"caption. a, b"``.
  Images without captions fall back to the names. In attribute runs the rule ``caption`` takes the
  shortest caption that names every phrase (``"a red circle and ..."``: no more than what is asked); if
  none does, it acts as ``caption+names``, so that the global prompt names every attribute asked for.

Rules of the paper edition (as in the published evaluation script): phrases are category names; with
captions the prompt is the first caption and the names of *all* instances with no separator between,
without captions the names alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

__all__ = [
    "COLORS",
    "PROMPT_RULES",
    "TEXTURES",
    "Attribute",
    "PromptRule",
    "attribute_word",
    "join_caption_and_names",
    "join_names",
    "paper_prompt",
    "strict_prompt",
]

Attribute = Literal["color", "texture"]
PromptRule = Literal["caption", "names", "caption+names"]
PROMPT_RULES: tuple[PromptRule, ...] = get_args(PromptRule)

COLORS = ("black", "white", "red", "green", "yellow", "blue", "pink", "purple")
"""Colour words by ``annotation_id % 8`` (published evaluation script)."""
TEXTURES = ("rubber", "fluffy", "metallic", "wooden", "plastic", "fabric", "leather", "glass")
"""Texture words by ``annotation_id % 8`` (published evaluation script)."""

_WORDS = {"color": COLORS, "texture": TEXTURES}


def attribute_word(attribute: Attribute, annotation_id: int, words: Sequence[str] | None = None) -> str:
    """The attribute that an annotation without one of its own is asked to have.

    Args:
        attribute: "color" or "texture".
        annotation_id: Annotation id.
        words: The words to choose from by ``annotation_id % len(words)``; None takes the published list.
    """
    words = words or _WORDS[attribute]
    return words[annotation_id % len(words)]


def join_names(names: Sequence[str]) -> str:
    """Names separated by commas, repeated ones included."""
    return ", ".join(names)


def join_caption_and_names(caption: str, names: Sequence[str]) -> str:
    """Caption and names as two sentences: ``"caption. a, b"``; either may be empty."""
    caption = caption.strip()
    if not caption or not names:
        return caption or join_names(names)
    end = "" if caption[-1] in ".!?" else "."
    return f"{caption}{end} {join_names(names)}"


def strict_prompt(
    captions: Sequence[str], phrases: Sequence[str], rule: PromptRule, *, attribute_run: bool
) -> str:
    """The global prompt of the strict edition.

    Args:
        captions: Captions of the image, possibly none.
        phrases: Phrases of the requested instances.
        rule: Prompt rule.
        attribute_run: Whether phrases ask for an attribute.

    Returns:
        The prompt, with runs of white space made single spaces.
    """
    texts = [" ".join(text.split()) for text in captions]
    if rule == "names" or not texts:
        return join_names(phrases)
    if rule == "caption" and attribute_run:
        naming = [text for text in texts if all(_names(text, phrase) for phrase in phrases)]
        if naming:
            return min(naming, key=len)
    if rule == "caption" and not attribute_run:
        return texts[0]
    return join_caption_and_names(texts[0], phrases)


def paper_prompt(captions: Sequence[str], names: Sequence[str], rule: PromptRule) -> str:
    """The global prompt of the paper edition: caption and names with nothing between them."""
    caption = captions[0] if captions and rule != "names" else ""
    return caption + join_names(names)


def _names(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, flags=re.IGNORECASE) is not None
