"""How long the texts of a data set are in tokens: what a context length cuts. No tensorflow."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from .tokenizer import Tokenizer

_AT_ONCE = 10_000  # captions tokenized in one call; bounds the memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenLengths:
    """The lengths of many texts in tokens, begin and end included.

    Attributes:
      counts: int64 [longest + 1]; `counts[n]` texts have n tokens.
    """

    counts: np.ndarray

    @property
    def total(self) -> int:
        """The number of texts."""
        return int(self.counts.sum())

    @property
    def longest(self) -> int:
        """The most tokens of a text, 0 without any text."""
        return len(self.counts) - 1

    @property
    def mean(self) -> float:
        """The mean number of tokens, 0 without any text."""
        return float(np.arange(len(self.counts)) @ self.counts) / max(1, self.total)

    def truncated(self, context_length: int) -> int:
        """Return how many texts a context of that many tokens cuts.

        >>> TokenLengths(counts=np.array([0, 0, 3, 4, 1])).truncated(3)
        1
        """
        return int(self.counts[context_length + 1 :].sum())

    def covering(self, share: float) -> int:
        """Return the least context length that leaves at least `share` (0 to 1) of the texts whole.

        >>> TokenLengths(counts=np.array([0, 0, 3, 4, 1])).covering(0.8)
        3
        """
        whole = np.cumsum(self.counts)
        return int(np.searchsorted(whole, share * self.total - 1e-9))

    def histogram(self, *, bins: int = 20) -> list[tuple[int, int, int]]:
        """Return rows `(from, to, texts)` of tokens, both inclusive and of equal width, from 0 to the longest.

        >>> TokenLengths(counts=np.array([0, 0, 3, 4, 1])).histogram(bins=2)
        [(0, 2, 3), (3, 5, 5)]
        """
        width = -(-len(self.counts) // bins)
        return [
            (first, first + width - 1, int(self.counts[first : first + width].sum()))
            for first in range(0, len(self.counts), width)
        ]


def token_lengths(captions: Iterable[str], *, tokenizer: Tokenizer, clean: Callable[[str], str]) -> TokenLengths:
    """Count the lengths of captions in tokens.

    Args:
      captions: the texts as given.
      tokenizer: turns strings into ids.
      clean: applied to each text first, see `clean.text_cleaner`.
    """
    counts = np.zeros(1, np.int64)
    chunk: list[str] = []

    def add() -> None:
        nonlocal counts
        found = np.bincount(tokenizer.lengths(chunk), minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
        chunk.clear()

    for caption in captions:
        chunk.append(clean(caption))
        if len(chunk) == _AT_ONCE:
            add()
    if chunk:
        add()
    return TokenLengths(counts=counts)


def truncation_note(*, truncated: int, total: int, longest: int, context_length: int) -> str:
    """Say in a line how many texts the context cuts, and how long the longest is; "" if it cuts none.

    >>> truncation_note(truncated=3, total=40, longest=91, context_length=64)
    '3 of 40 texts (7.5 %) are longer than context_length=64 tokens and are cut; the longest has 91'
    """
    if not truncated:
        return ""
    return (
        f"{truncated:,} of {total:,} texts ({100 * truncated / total:.1f} %) are longer than "
        f"context_length={context_length} tokens and are cut; the longest has {longest:,}"
    )
