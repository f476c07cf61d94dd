"""The words of a text, texts without some of them, and which tokens belong to which word."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ..data.options import InputSpec
from ..data.text.clean import text_cleaner
from ..data.text.tokenizer import Tokenizer


def words_of(text: str, *, spec: InputSpec) -> list[str]:
    """Return the words of a text, cleaned as the model's texts are and divided at white space."""
    return text_cleaner(spec.text)(text).split()


def without(words: Sequence[str], *, keep: Bool[np.ndarray, "n W"]) -> list[str]:
    """Return a text for each row of `keep`: the words that it keeps.

    >>> without(["a", "red", "star"], keep=np.array([[True, False, True]]))
    ['a star']
    """
    return [" ".join(word for word, kept in zip(words, row, strict=True) if kept) for row in keep]


def token_words(words: Sequence[str], *, tokenizer: Tokenizer, context_length: int) -> np.ndarray:
    """Return the number of the word to which each token belongs, int64 [L]; -1 for special tokens and padding.

    A word's tokens are those by which the text up to it is longer than the text before it, so that this holds for
    every tokenizer whose tokens end where words do.
    """
    texts = [" ".join(words[:count]) for count in range(len(words) + 1)]
    ids, mask, _ = tokenizer.encode(texts, context_length=context_length)
    rows = [row[real] for row, real in zip(ids, mask, strict=True)]
    found = np.full(context_length, -1, np.int64)
    starts = [_shared(a, b) for a, b in itertools.pairwise(rows)]
    after = len(rows[0]) - starts[0] if starts else 0  # special tokens behind the words
    for number, start in enumerate(starts):
        end = len(rows[number + 1]) - after
        found[start : min([end, *starts[number + 1 : number + 2]])] = number
    return found


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many tokens two rows begin with in common."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    return int(np.argmax(differs)) if differs.any() else size
