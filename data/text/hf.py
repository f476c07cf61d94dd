"""Strings to token ids by Hugging Face's `tokenizers`: CLIP's and BERT's, and all that is one `tokenizer.json`.

No tensorflow.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tokenizers
from tokenizers import models

from ...base.errors import UserError
from .rows import check_room, check_texts, padded

_PROBES = ("a", "1", "the", ".", "的")  # one of them makes a token in any vocabulary


class HfTokenizer:
    """A `tokenizer.json` of Hugging Face: its normalisation, its tokens, and the special tokens that it puts around.

    Ids are those of `transformers` with `truncation=True, split_special_tokens=True`: a caption that spells out a
    special token (`<|endoftext|>`, `[SEP]`) gets the tokens of these characters, never the special token, which would
    end the text early or let captions forge structure. (`transformers` itself, without `split_special_tokens`, does
    make the special token of it.) Padding is always on the right.

    Attributes:
      bos_id: the token before each text, -1 if there is none.
      eos_id: the token after each text, -1 if there is none.
      pad_id: what fills the rows; CLIP's is its end token, and the mask alone tells them apart.
      vocab_size: V, one more than the largest id.
    """

    KIND: ClassVar[str] = "tokenizers"
    FILE: ClassVar[str] = "tokenizer.json"

    def __init__(self, file: str, *, pad_id: int | None = None) -> None:
        """Wrap a tokenizer.

        Args:
          file: the text of a `tokenizer.json`.
          pad_id: what fills the rows; None = what the file says, or else the end token.

        Raises:
          UserError: it is no such file, or it puts no special token around a text.
        """
        try:
            backend = tokenizers.Tokenizer.from_str(file)
        except Exception as error:  # the library raises Exception itself
            raise UserError(
                f"these {len(file)} characters are no tokenizer.json that tokenizers {tokenizers.__version__} reads "
                f"({error}); save it anew with save_pretrained of transformers, or set config.data.tokenizer to "
                "another file"
            ) from error
        padding = backend.padding
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self._file, self._backend = file, backend
        self._begin, self._end = around(backend)
        if not self._begin and not self._end:
            raise UserError(
                "the tokenizer puts no special token before or after a text, so that an empty caption would have no "
                "token at all; give its tokenizer.json a post_processor that adds a begin or an end token"
            )
        self.bos_id = self._begin[-1] if self._begin else -1
        self.eos_id = self._end[0] if self._end else -1
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        if pad_id is None:
            pad_id = int(padding["pad_id"]) if padding else self._end[0] if self._end else 0
        self.pad_id = pad_id
        self._unknown, self._special = _reserved(backend)

    def encode(self, strings: Sequence[str], *, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Turn strings into padded rows of ids: begin, tokens, end, padding.

        Args:
          strings: n texts; an empty one gives the special tokens alone.
          context_length: the width L of the rows. A longer text loses its last tokens, never the special ones.

        Returns:
          ids int32 [n,L], mask bool [n,L] (True = real), and the number of texts that were cut.
        """
        check_room(context_length, around=len(self._begin) + len(self._end))
        room = context_length - len(self._begin) - len(self._end)
        texts = self._tokens(strings)
        rows = [[*self._begin, *text[:room], *self._end] for text in texts]
        ids, mask = padded(rows, context_length=context_length, pad_id=self.pad_id)
        return ids, mask, sum(len(text) > room for text in texts)

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no part of a text: all special tokens, the unknown, and padding."""
        unknown = set() if self._unknown is None else {self._unknown}
        return self._special | unknown | {self.pad_id, *self._begin, *self._end}

    def lengths(self, strings: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text with the special ones, uncut, int64 [n]."""
        around = len(self._begin) + len(self._end)
        return np.array([len(text) + around for text in self._tokens(strings)], np.int64)

    def unknown_share(self, strings: Sequence[str]) -> float:
        """Return the share of the tokens of the texts that are the unknown one; 0 where the vocabulary has none."""
        tokens = [token for text in self._tokens(strings) for token in text]
        return sum(token == self._unknown for token in tokens) / max(len(tokens), 1)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn one row of ids back into text, as far as the vocabulary can; special tokens and padding are left out."""
        special = self._special | {self.pad_id, *self._begin, *self._end}
        text = self._backend.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=False)
        suffix = getattr(self._backend.model, "end_of_word_suffix", None)
        return text.replace(suffix, " ").strip() if suffix else text

    def id_of(self, token: str) -> int | None:
        """Return the id of a token by its name, None if the vocabulary lacks it."""
        return self._backend.token_to_id(token)

    def to_meta(self) -> dict[str, Any]:
        """Return the tokenizer as a JSON value, as a checkpoint holds it: the file is compressed (zlib)."""
        packed = base64.b64encode(zlib.compress(self._file.encode("utf-8"), 9)).decode("ascii")
        return {"kind": self.KIND, "tokenizer_json_zlib_base64": packed, **self.layout()}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "HfTokenizer":
        """Build from what `to_meta` gave."""
        file = zlib.decompress(base64.b64decode(meta["tokenizer_json_zlib_base64"])).decode("utf-8")
        return cls(file, pad_id=meta["pad_id"])

    def file_bytes(self) -> bytes:
        """Return the content of `tokenizer.json`."""
        return self._file.encode("utf-8")

    def layout(self) -> dict[str, Any]:
        """Return what fills the rows."""
        return {"pad_id": self.pad_id}

    @classmethod
    def from_bytes(cls, file: bytes, **layout: Any) -> "HfTokenizer":
        """Build from what `file_bytes` and `layout` gave."""
        return cls(file.decode("utf-8"), **layout)

    def _tokens(self, strings: Sequence[str]) -> list[list[int]]:
        """The ids of each text alone, all of them ordinary."""
        texts = check_texts(strings)
        # Without special tokens around, so that a text of ten thousand words is cut here and not copied in between.
        found = [encoding.ids for encoding in self._backend.encode_batch(texts, add_special_tokens=False)]
        for row, ids in enumerate(found):
            if not self._special.isdisjoint(ids):  # a model that has "</s>" among its own pieces, as T5's has
                found[row] = self._ordinary(ids)
        return found

    def _ordinary(self, ids: list[int]) -> list[int]:
        """Make special tokens that the model itself read from a text unknown ones, or drop them if it has none."""
        unknown = [] if self._unknown is None else [self._unknown]
        return [i for token in ids for i in (unknown if token in self._special else [token])]


def around(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens that a tokenizer puts before and after a text."""
    for probe in _PROBES:
        whole, bare = backend.encode(probe), backend.encode(probe, add_special_tokens=False)
        if bare.ids:
            first = whole.special_tokens_mask.index(0)
            return whole.ids[:first], whole.ids[first + len(bare.ids) :]
    raise UserError(f"the tokenizer makes no token of any of {', '.join(_PROBES)}: its vocabulary has no text in it")


def _reserved(backend: tokenizers.Tokenizer) -> tuple[int | None, frozenset[int]]:
    """The id for unknown characters, and the ids that no text may get: all special tokens but that one."""
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    if isinstance(backend.model, models.Unigram):  # it keeps the number to itself
        return (unknown := json.loads(backend.to_str())["model"]["unk_id"]), frozenset(special - {unknown})
    name = getattr(backend.model, "unk_token", None)
    unknown = backend.token_to_id(name) if name else None
    return unknown, frozenset(special - {unknown})
