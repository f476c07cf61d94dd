"""The captions of a split, tokenized once and looked up by record and caption number. No tensorflow."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..text.tokenizer import Tokenizer

_AT_ONCE = 10_000  # captions tokenized in one call; bounds the memory


class TokenizedCaptions:
    """Token ids of all captions of a split.

    Attributes:
      truncated: number of captions that were longer than the context and were cut.
      total: number of captions.
      counts: int32 [n], captions of each record.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        *,
        tokenizer: Tokenizer,
        context_length: int,
        clean: Callable[[str], str],
    ):
        """Tokenize.

        Args:
          rows: the lines of clips.jsonl of the split.
          tokenizer: turns strings into ids.
          context_length: tokens L of a text.
          clean: applied to each caption first.
        """
        self.counts = np.array([len(row["captions"]) for row in rows], np.int32)
        self.total = int(self.counts.sum())
        self.truncated = 0
        self._begin = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        # The last row is the empty caption, for records without one and for padding.
        small = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32  # half the memory for ten million captions
        self._ids = np.empty((self.total + 1, context_length), small)
        self._lengths = np.empty(self.total + 1, np.int32)
        done = 0
        for chunk in _chunks((clean(caption) for row in rows for caption in row["captions"]), last=""):
            ids, mask, truncated = tokenizer.encode(chunk, context_length=context_length)
            self._ids[done : done + len(chunk)] = ids
            self._lengths[done : done + len(chunk)] = mask.sum(axis=1)
            self.truncated += truncated
            done += len(chunk)

    def lookup(self, record: np.ndarray, caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids int32 [b,L] and mask bool [b,L] of caption number `caption` [b] of `record` [b].

        Where `caption` is negative, the empty caption (begin and end) is returned.
        """
        place = np.where(caption >= 0, self._begin[record] + caption, self.total)
        mask = np.arange(self._ids.shape[1]) < self._lengths[place][:, None]
        return self._ids[place].astype(np.int32), mask


def _chunks(captions: Iterator[str], *, last: str) -> Iterator[list[str]]:
    chunk: list[str] = []
    for caption in captions:
        chunk.append(caption)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    yield [*chunk, last]
