"""Strings to token ids by SentencePiece: trained on the captions at hand, or a `.model` file. No tensorflow."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import sentencepiece

from ...base.errors import UserError
from .clean import is_visible
from .rows import check_room, check_texts, padded

_PAD = 0
_SPECIALS = 4  # pad, unknown, begin, end
_BYTES = 256
_MAX_SENTENCES = 500_000  # more captions than this are thinned evenly: the vocabulary does not change, the time does
_RESERVED = {0x2585: " ", 0xFFFD: " "}  # the trainer drops sentences with the first, and does not count the second
_MAX_BYTES = 4096  # longer captions are cut into several sentences; the trainer drops those of more than 4,192 bytes


class SentencePieceTokenizer:
    """A SentencePiece model that wraps strings in begin and end tokens and pads them to a common length.

    Control tokens such as `</s>` are never read from a text: SentencePiece spells them as the characters they are.

    Attributes:
      model: the bytes of the `.model` file.
      bos_id: the token before each text, -1 if there is none.
      eos_id: the token after each text, -1 if there is none.
      pad_id: what fills the rows.
      vocab_size: V, pieces of the model.
    """

    KIND: ClassVar[str] = "sentencepiece"
    FILE: ClassVar[str] = "tokenizer.model"

    def __init__(
        self, model: bytes, *, add_bos: bool | None = None, add_eos: bool = True, pad_id: int | None = None
    ) -> None:
        """Wrap a model.

        Args:
          model: the bytes of a SentencePiece `.model` file.
          add_bos: whether a begin token stands before each text; None = where the model has one.
          add_eos: whether an end token stands after each text.
          pad_id: what fills the rows; None = the model's padding token, or 0 where it has none.

        Raises:
          UserError: the bytes are no SentencePiece model, or it lacks the token that is to be added.
        """
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(
                f"these {len(model)} bytes are no SentencePiece model ({error}); "
                "set config.data.tokenizer to a .model file, or to 'train'"
            ) from error
        self.model = model
        self._processor = processor
        self.vocab_size: int = processor.GetPieceSize()
        add_bos = processor.bos_id() >= 0 if add_bos is None else add_bos
        self.bos_id: int = processor.bos_id() if add_bos else -1
        self.eos_id: int = processor.eos_id() if add_eos else -1
        self.pad_id: int = max(processor.pad_id(), 0) if pad_id is None else pad_id
        for name, wanted, found in (("begin", add_bos, self.bos_id), ("end", add_eos, self.eos_id)):
            if wanted and found < 0:
                flag = {"begin": "bos_id", "end": "eos_id"}[name]
                raise UserError(
                    f"the SentencePiece model has no {name} token ({flag} is -1); train it with --{flag}, "
                    "or set config.data.tokenizer='train'"
                )

    @classmethod
    def train(cls, captions: Iterable[str], *, vocab_size: int) -> "SentencePieceTokenizer":
        """Train byte-pair encoding (Sennrich et al. 2016) with byte fallback; equal captions give equal bytes.

        Args:
          captions: the texts, in any script; what their vocabulary cannot spell becomes UTF-8 byte tokens.
          vocab_size: the largest size; a small corpus gets a smaller one.

        Raises:
          UserError: there is no text at all, or `vocab_size` has no room for the bytes and a few characters.
        """
        sentences = _sentences(captions)
        if not sentences:
            raise UserError(
                "there is no caption to train a tokenizer on: every caption is empty; "
                "give captions, or set config.data.tokenizer to a SentencePiece .model file"
            )
        room = vocab_size - _SPECIALS - _BYTES
        if room < 32:
            raise UserError(
                f"vocab_size={vocab_size} is too small: {_SPECIALS} special and {_BYTES} byte tokens leave {room} "
                f"pieces, at least 32 are wanted; set config.data.vocab_size to {_SPECIALS + _BYTES + 32} or more"
            )
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(_without_rare(sentences, room=room)),
            model_writer=out,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,
            pad_id=_PAD,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            num_threads=1,  # more threads sum the counts in another order: not the same bytes
            minloglevel=2,
        )
        return cls(out.getvalue())

    def encode(self, strings: Sequence[str], *, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Turn strings into padded rows of ids: begin, pieces, end, padding.

        Args:
          strings: n texts; an empty one gives begin and end alone.
          context_length: the width L of the rows, at least 2. A longer text loses its last pieces, never its end token.

        Returns:
          ids int32 [n,L], mask bool [n,L] (True = real), and the number of texts that were cut.
        """
        check_room(context_length, around=len(self._begin) + len(self._end))
        room = context_length - len(self._begin) - len(self._end)
        pieces = self._pieces(strings)
        rows = [[*self._begin, *text[:room], *self._end] for text in pieces]
        ids, mask = padded(rows, context_length=context_length, pad_id=self.pad_id)
        return ids, mask, sum(len(text) > room for text in pieces)

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no part of a text: control tokens, the unknown, and padding."""
        model, all_ids = self._processor, range(self.vocab_size)
        return frozenset(i for i in all_ids if model.IsControl(i) or model.IsUnknown(i)) | {self.pad_id}

    def lengths(self, strings: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text with begin and end, uncut, int64 [n]."""
        around = len(self._begin) + len(self._end)
        return np.array([len(text) + around for text in self._pieces(strings)], np.int64)

    def unknown_share(self, strings: Sequence[str]) -> float:
        """Return the share of the tokens of the texts that are the unknown one, or single bytes in its place."""
        of = self._processor
        tokens = [token for text in self._pieces(strings) for token in text]
        return sum(of.IsUnknown(token) or of.IsByte(token) for token in tokens) / max(len(tokens), 1)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn one row of ids back into text; padding, begin and end are left out."""
        special = {self.pad_id, self._processor.pad_id(), self._processor.bos_id(), self._processor.eos_id()}
        return self._processor.DecodeIds([int(i) for i in ids if int(i) not in special])

    def id_of(self, piece: str) -> int | None:
        """Return the id of a piece by its name, None if the model lacks it."""
        found = self._processor.PieceToId(piece)
        return found if self._processor.IdToPiece(found) == piece else None

    def to_meta(self) -> dict[str, Any]:
        """Return the tokenizer as a JSON value, as a checkpoint holds it."""
        return {
            "kind": self.KIND,
            "model_base64": base64.b64encode(self.model).decode("ascii"),
            **self.layout(),
        }

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "SentencePieceTokenizer":
        """Build from what `to_meta` gave.

        Raises:
          UserError: the meta lacks a field, as those of versions before 0.1.0 do.
        """
        lacking = [name for name in ("model_base64", "add_bos", "add_eos", "pad_id") if name not in meta]
        if lacking:
            raise UserError(
                f"the tokenizer of the checkpoint has no {', '.join(lacking)}: it was written before 0.1.0; "
                "train the checkpoint again with this version"
            )
        layout = {name: meta[name] for name in ("add_bos", "add_eos", "pad_id")}
        return cls(base64.b64decode(meta["model_base64"]), **layout)

    def file_bytes(self) -> bytes:
        """Return the content of the SentencePiece model."""
        return self.model

    def layout(self) -> dict[str, Any]:
        """Return which special tokens stand around a text, and what fills the rows."""
        return {"add_bos": self.bos_id >= 0, "add_eos": self.eos_id >= 0, "pad_id": self.pad_id}

    @classmethod
    def from_bytes(cls, file: bytes, **layout: Any) -> "SentencePieceTokenizer":
        """Build from what `file_bytes` and `layout` gave."""
        return cls(file, **layout)

    @property
    def _begin(self) -> list[int]:
        return [self.bos_id] if self.bos_id >= 0 else []

    @property
    def _end(self) -> list[int]:
        return [self.eos_id] if self.eos_id >= 0 else []

    def _pieces(self, strings: Sequence[str]) -> list[list[int]]:
        texts = check_texts(strings)
        return self._processor.EncodeAsIds(texts) if texts else []


def _sentences(captions: Iterable[str]) -> list[str]:
    """Captions as the trainer takes them: one line each, none empty, none too long, not too many."""
    texts = (" ".join(caption.translate(_RESERVED).split()) for caption in captions)
    lines = [piece for text in texts if is_visible(text) for piece in _cut(text)]
    step = -(-len(lines) // _MAX_SENTENCES) if lines else 1
    return lines[::step]


def _cut(line: str) -> Iterator[str]:
    """Yield a line in pieces of at most `_MAX_BYTES` bytes: cut at a blank if there is one, else between characters."""
    raw = line.encode("utf-8")
    while len(raw) > _MAX_BYTES:
        end = _MAX_BYTES
        while raw[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        blank = raw.rfind(b" ", 1, end + 1)
        end = blank if blank > 0 else end
        yield raw[:end].decode("utf-8")
        raw = raw[end:].removeprefix(b" ")
    yield raw.decode("utf-8")


def _without_rare(sentences: list[str], *, room: int) -> list[str]:
    """Drop characters until the distinct ones fill at most half of `room`, so that pieces longer than one get the rest.

    A caption set in Chinese or with emoji can hold more distinct characters than the vocabulary has places, which the
    trainer refuses; the rare ones are spelled in bytes instead.
    """
    counts = Counter("".join(sentences))
    kept = {character for character, _ in counts.most_common(room // 2)} | {" "}
    if len(counts) <= len(kept):
        return sentences
    return ["".join(c if c in kept else " " for c in sentence) for sentence in sentences]
