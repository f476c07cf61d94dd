"""Whole words to ids, and word vectors from the text files of Word2Vec, GloVe and fastText. No tensorflow.

Sources: Mikolov et al. 2013; Pennington et al. 2014; Bojanowski et al. 2017.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...base.errors import UserError
from .rows import check_room, check_texts, padded

_WORD = re.compile(r"[\w']+")


class WordTokenizer:
    r"""A list of known words; a text is the words of it that are known (`[\w']+`), and all others are skipped.

    A word is looked up as it is written, then in lower case. A text without a known word has no token at all: its mask
    is False everywhere.

    Attributes:
      words: the words; the first has id 1.
      bos_id: -1, there is no begin token.
      eos_id: -1, there is no end token.
      pad_id: 0, which belongs to no word.
      vocab_size: V, words + 1.
    """

    KIND: ClassVar[str] = "words"
    FILE: ClassVar[str] = "words.txt"

    def __init__(self, words: Sequence[str]) -> None:
        """Make the list.

        Args:
          words: each once, without white space.

        Raises:
          UserError: no word, or one that is there twice, empty or holds white space.
        """
        self.words = tuple(words)
        self._ids = {word: number for number, word in enumerate(self.words, start=1)}
        bad = next((word for word in self.words if not word or len(word.split()) != 1), None)
        if not self.words or bad is not None or len(self._ids) != len(self.words):
            found = "no word" if not self.words else f"the word {bad!r}" if bad is not None else "a word twice"
            raise UserError(f"the list of words holds {found}; set config.data.tokenizer to a file of word vectors")
        self.bos_id, self.eos_id, self.pad_id, self.vocab_size = -1, -1, 0, len(self.words) + 1

    def encode(self, strings: Sequence[str], *, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Turn strings into padded rows of ids.

        Args:
          strings: n texts.
          context_length: the width L of the rows; a longer text loses its last words.

        Returns:
          ids int32 [n,L], mask bool [n,L] (True = real), and the number of texts that were cut.
        """
        check_room(context_length, around=0)
        rows = self._known(strings)
        ids, mask = padded([row[:context_length] for row in rows], context_length=context_length, pad_id=self.pad_id)
        return ids, mask, sum(len(row) > context_length for row in rows)

    @property
    def special_ids(self) -> frozenset[int]:
        """The id of padding."""
        return frozenset({self.pad_id})

    def lengths(self, strings: Sequence[str]) -> np.ndarray:
        """Return the number of known words of each text, uncut, int64 [n]."""
        return np.array([len(row) for row in self._known(strings)], np.int64)

    def unknown_share(self, strings: Sequence[str]) -> float:
        """Return the share of the words of the texts that have no vector, and are therefore left out."""
        total = sum(len(_WORD.findall(text)) for text in check_texts(strings))
        return 1 - int(self.lengths(strings).sum()) / total if total else 0.0

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the words of one row of ids with spaces between them."""
        return " ".join(self.words[int(number) - 1] for number in ids if int(number) != self.pad_id)

    def to_meta(self) -> dict[str, Any]:
        """Return the tokenizer as a JSON value, as a checkpoint holds it."""
        return {"kind": self.KIND, "words": list(self.words), **self.layout()}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "WordTokenizer":
        """Build from what `to_meta` gave."""
        return cls(meta["words"])

    def file_bytes(self) -> bytes:
        """Return the words, one a line, UTF-8."""
        return "".join(f"{word}\n" for word in self.words).encode()

    def layout(self) -> dict[str, Any]:
        """Return {}: the file says everything."""
        return {}

    @classmethod
    def from_bytes(cls, file: bytes, **layout: Any) -> "WordTokenizer":
        """Build from what `file_bytes` and `layout` gave."""
        return cls(file.decode().split("\n")[:-1], **layout)

    def _known(self, strings: Sequence[str]) -> list[list[int]]:
        found = []
        for text in check_texts(strings):
            ids = (self._ids.get(word) or self._ids.get(word.lower()) for word in _WORD.findall(text))
            found.append([number for number in ids if number is not None])
        return found


def read_vectors(path: Path | str) -> tuple[list[str], np.ndarray]:
    """Read word vectors from a text file: a word and its numbers on each line, with a space between them.

    The first line may hold the counts of words and numbers (Word2Vec, fastText) or not (GloVe). Of a word that is there
    twice, the first vector counts.

    Returns:
      n words and float32 `[n,D]`.

    Raises:
      UserError: the file cannot be read as text, or has no vectors, or a line has another number of them.
    """
    path, words, rows = Path(path), [], []
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *numbers = line.rstrip().split(" ")
                if number == 1 and len(numbers) == 1:
                    continue
                if rows and len(numbers) != len(rows[0]):
                    raise UserError(
                        f"{path}, line {number}: {len(numbers)} numbers after the word, {len(rows[0])} on the lines "
                        "before; fetch the file again"
                    )
                if word and word not in seen:
                    seen.add(word)
                    words.append(word)
                    rows.append(np.array(numbers, np.float32))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as word vectors ({error}); wanted UTF-8 text with a word and its numbers on each "
            "line, not the binary form of Word2Vec"
        ) from error
    if not rows or not len(rows[0]):
        raise UserError(f"{path} holds no word vectors; wanted a word and its numbers on each line")
    return words, np.stack(rows)
