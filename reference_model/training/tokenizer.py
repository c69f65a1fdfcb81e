"""Recipe of the tokenizer: CLIP's byte-level BPE with merges learnt from the words of training folders.

Every byte is a token of its own, inside and at the end of a word, so any text can be encoded; the merges
make each word of the folders' captions and phrases a single token.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from reference_model.training.common import write_recipe
from reference_model.training.data import read_folder

__all__ = ["TokenizerRecipe", "folder_texts", "main", "train_tokenizer"]

logger = logging.getLogger(__name__)

_BEGIN, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


@dataclass(frozen=True)
class TokenizerRecipe:
    """Every number of the recipe.

    Attributes:
        vocab_size: Largest size of the vocabulary, special tokens included.
        max_length: Longest text in tokens, special tokens included.
    """

    vocab_size: int = 1000
    max_length: int = 77


def folder_texts(folders: Sequence[Path]) -> list[str]:
    """Distinct captions, phrases, categories and attribute words of COCO-format folders, sorted.

    Raises:
        ValueError: If a folder cannot be read.
    """
    texts: set[str] = set()
    for path in folders:
        folder = read_folder(path)
        texts.update(folder.captions, folder.phrases, folder.categories, *folder.attributes.values())
    return sorted(texts)


def _words(texts: Iterable[str]) -> list[str]:
    """Distinct byte-level words of texts, most frequent first, split exactly as CLIP's tokenizer does."""
    backend = CLIPTokenizer().backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        counts.update(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _merges(words: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """Byte-pair merges, at most ``limit``, the most frequent pair first, ties in alphabetical order.

    Each word weighs the same: a rare word must become one token as surely as a frequent one. Written out here
    because the `tokenizers` trainer breaks ties by the order of a hash table.
    """
    pieces = [[*word[:-1], word[-1] + _WORD_END] for word in sorted(words)]
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merged(piece, best) for piece in pieces]
    return merges


def _merged(piece: Sequence[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    position = 0
    while position < len(piece):
        if tuple(piece[position : position + 2]) == pair:
            result.append(pair[0] + pair[1])
            position += 2
        else:
            result.append(piece[position])
            position += 1
    return result


def train_tokenizer(texts: Sequence[str], recipe: TokenizerRecipe | None = None) -> CLIPTokenizer:
    """Builds a tokenizer whose merges come from the words of some texts.

    Args:
        texts: Texts whose words should become single tokens.
        recipe: Sizes.

    Returns:
        A tokenizer with CLIP's special tokens; it can be saved and loaded as any `CLIPTokenizer`.

    Raises:
        ValueError: If the vocabulary has no room for the single bytes.
    """
    recipe = recipe or TokenizerRecipe()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*alphabet, *(letter + _WORD_END for letter in alphabet)]
    room = recipe.vocab_size - len(base) - 2
    if room < 0:
        raise ValueError(f"vocab_size {recipe.vocab_size}: all bytes need {len(base) + 2} tokens; raise it")
    merges = _merges(_words(texts), room)
    tokens = list(dict.fromkeys([*base, *(first + second for first, second in merges)]))
    vocabulary = {token: position for position, token in enumerate([*tokens, _BEGIN, _END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=recipe.max_length)


def main(argv: list[str] | None = None) -> int:
    """Command line of the recipe; returns the exit code."""
    default = TokenizerRecipe()
    parser = argparse.ArgumentParser(prog="python -m reference_model.training tokenizer", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--vocab-size", type=int, default=default.vocab_size)
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    recipe = TokenizerRecipe(vocab_size=arguments.vocab_size)
    texts = folder_texts(arguments.data)
    tokenizer = train_tokenizer(texts, recipe)
    tokenizer.save_pretrained(arguments.output)
    words = _words(texts)
    single = sum(len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for word in words)
    figures = {"vocab_size": len(tokenizer), "words": len(words), "words_of_one_token": single}
    write_recipe(
        arguments.output, recipe, steps=0, minutes=(time.monotonic() - started) / 60, figures=figures
    )
    logger.info("%s: %s", arguments.output, figures)
    return 0
