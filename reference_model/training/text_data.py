"""Texts with labels for the text encoder, made from the words of training folders.

Nothing here knows the words of any world: categories, attribute kinds and their words, phrases and captions
all come from the folders' JSON files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from reference_model.training.data import CocoFolder, SceneRecord

__all__ = ["CATEGORY", "LabelledText", "Mention", "PhraseSpan", "TextWorld", "random_words"]

CATEGORY = "category"

_PREFIXES = ("", "", "a ", "the ", "one ", "a photo of a ", "an image of a ", "a picture of the ")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Mention:
    """A label word inside a text.

    Attributes:
        kind: `CATEGORY` or an attribute kind.
        label: Class of the word within its kind, from 1; 0 stands for "not mentioned".
        end: Character position just after the word.
    """

    kind: str
    label: int
    end: int


@dataclass(frozen=True)
class PhraseSpan:
    """The phrase of one object inside a text: characters ``start`` to ``end`` and the words that it mentions."""

    start: int
    end: int
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class LabelledText:
    """A text, its phrases in order, and the units (words, pairs within a phrase, repeats) that it holds."""

    text: str
    phrases: tuple[PhraseSpan, ...]
    units: tuple[int, ...] = ()


def random_words(rng: np.random.Generator, count: int) -> str:
    """``count`` random lower-case letter strings, three to eight letters each."""
    letters = np.array(list(_LETTERS))
    return " ".join("".join(rng.choice(letters, size=rng.integers(3, 9))) for _ in range(count))


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(text)}\b")


class TextWorld:
    """The words of some folders and the labelled texts that can be made of them.

    Args:
        folders: Training folders; their words are merged.

    Attributes:
        kinds: Label words of each kind; class ``i + 1`` is word ``i``.
        phrases: Distinct phrases, sorted.
        units: Names of the caption units, in the order of their classes.
    """

    def __init__(self, folders: Sequence[CocoFolder]) -> None:
        words: dict[str, set[str]] = {CATEGORY: {name for folder in folders for name in folder.categories}}
        for folder in folders:
            for kind, found in folder.attributes.items():
                words.setdefault(kind, set()).update(found)
        self.kinds = {kind: tuple(sorted(found)) for kind, found in words.items()}
        self.phrases = tuple(sorted({text for folder in folders for text in folder.phrases}))
        self.scenes = tuple(scene for folder in folders for scene in folder.scenes if scene.captions)
        if not self.phrases or not self.scenes:
            raise ValueError(
                f"{', '.join(str(folder.root) for folder in folders)}: annotations need 'captions' phrases and "
                "captions.json must hold captions; export the folder again"
            )
        self.units = self._all_units()
        self._unit_index = {name: position for position, name in enumerate(self.units)}

    def _all_units(self) -> tuple[str, ...]:
        labels = {word for found in self.kinds.values() for word in found}
        # Words outside all phrases (backgrounds, articles) are few; a sample of the captions shows them all.
        texts = [text for scene in self.scenes[:2000] for text in scene.captions]
        others = {word for text in texts for word in re.findall(r"\w+", text)} - labels
        kinds = sorted(self.kinds)
        pairs = {
            f"{first}+{second}"
            for position, kind in enumerate(kinds)
            for other in kinds[position + 1 :]
            for first in self.kinds[kind]
            for second in self.kinds[other]
        }
        repeats = {f"2x{word}" for word in self.kinds[CATEGORY]}
        return (*sorted(labels), *sorted(others), *sorted(pairs), *sorted(repeats))

    def span(self, phrase: str, start: int = 0) -> PhraseSpan:
        """The labels of a phrase that begins at a character position of a text."""
        mentions = []
        for kind, words in self.kinds.items():
            found = [
                (match.end(), position + 1)
                for position, word in enumerate(words)
                for match in _pattern(word).finditer(phrase)
            ]
            if found:
                end, label = max(found)
                mentions.append(Mention(kind, label, start + end))
        return PhraseSpan(start, start + len(phrase), tuple(mentions))

    def phrase(self, text: str, rng: np.random.Generator) -> LabelledText:
        """A phrase behind a random prefix, sometimes with an unrelated word in front."""
        prefix = _PREFIXES[rng.integers(len(_PREFIXES))]
        if rng.random() < 0.15:
            prefix += random_words(rng, 1) + " "
        return LabelledText(prefix + text, (self.span(text, len(prefix)),))

    def noise(self, rng: np.random.Generator) -> LabelledText:
        """Unrelated words: nothing is mentioned."""
        text = random_words(rng, int(rng.integers(1, 7)))
        return LabelledText(text, (PhraseSpan(0, len(text), ()),))

    def caption(self, scene: SceneRecord, position: int) -> LabelledText:
        """A caption of a scene with the phrases of its objects found in it, in the order of the objects."""
        text = scene.captions[position]
        spans, cursor = [], 0
        for item in scene.objects:
            for phrase in item.phrases:
                match = _pattern(phrase).search(text, cursor)
                if match:
                    spans.append(self.span(phrase, match.start()))
                    cursor = match.end()
                    break
        return LabelledText(text, tuple(spans), self._caption_units(text, spans))

    def _caption_units(self, text: str, spans: Sequence[PhraseSpan]) -> tuple[int, ...]:
        names = set(re.findall(r"\w+", text))
        counts: dict[str, int] = {}
        for span in spans:
            words = {mention.kind: self.kinds[mention.kind][mention.label - 1] for mention in span.mentions}
            names.update(words.values())
            kinds = sorted(words)
            names.update(
                f"{words[kind]}+{words[other]}" for at, kind in enumerate(kinds) for other in kinds[at + 1 :]
            )
            if CATEGORY in words:
                counts[words[CATEGORY]] = counts.get(words[CATEGORY], 0) + 1
        names.update(f"2x{word}" for word, count in counts.items() if count > 1)
        return tuple(sorted(self._unit_index[name] for name in names if name in self._unit_index))

    def unit_targets(self, texts: Sequence[LabelledText]) -> NDArray[np.float32]:
        """Multi-hot units, ``[len(texts), len(units)]``."""
        targets = np.zeros((len(texts), len(self.units)), np.float32)
        for row, item in enumerate(texts):
            targets[row, list(item.units)] = 1.0
        return targets
