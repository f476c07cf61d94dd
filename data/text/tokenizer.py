"""Strings to token ids by SentencePiece: trained on the captions at hand, or a `.model` file. No tensorflow."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from ...configs.errors import UserError

_SPECIALS = 4  # pad, unknown, begin, end
_BYTES = 256
_MAX_SENTENCES = 500_000  # more captions than this are thinned evenly: the vocabulary does not change, the time does
_MAX_WORDS = 256  # longer captions are cut into several sentences, because the trainer drops sentences above 4 KB


class Tokenizer:
    """A SentencePiece model that wraps strings in begin and end tokens and pads them to a common length."""

    pad_id = 0

    def __init__(self, model: bytes):
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        self.model = model
        self.bos_id: int = processor.bos_id()
        self.eos_id: int = processor.eos_id()
        self.vocab_size: int = processor.GetPieceSize()
        self._processor = processor
        if self.eos_id < 0:
            raise UserError(
                "the SentencePiece model has no end token (eos_id is -1); train it with --eos_id, "
                "or set config.data.tokenizer='train'"
            )

    @classmethod
    def from_model(cls, model: bytes) -> "Tokenizer":
        """Build from the bytes of a SentencePiece `.model` file.

        Raises:
          UserError: the bytes are no SentencePiece model, or it lacks an end token.
        """
        try:
            return cls(model)
        except RuntimeError as error:
            raise UserError(
                f"these {len(model)} bytes are no SentencePiece model ({error}); "
                "set config.data.tokenizer to a .model file, or to 'train'"
            ) from error

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a SentencePiece `.model` file.

        Raises:
          UserError: the file does not exist or is no SentencePiece model.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(
                f"tokenizer file {str(path)!r} does not exist; set config.data.tokenizer to a SentencePiece .model "
                "file, or to 'train' to train one on the captions of the train split"
            )
        return cls.from_model(path.read_bytes())

    @classmethod
    def train(cls, captions: Iterable[str], *, vocab_size: int) -> "Tokenizer":
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
            pad_id=cls.pad_id,
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
          ids int32 [n,L] padded with 0, mask bool [n,L] (True = real), and the number of texts that were cut.
        """
        if context_length < 2:
            raise UserError(
                f"context_length={context_length} has no room for the begin and end tokens; "
                "set config.data.context_length to 2 or more"
            )
        ids = np.full((len(strings), context_length), self.pad_id, np.int32)
        mask = np.zeros((len(strings), context_length), bool)
        prefix = [self.bos_id] if self.bos_id >= 0 else []
        truncated = 0
        for row, pieces in enumerate(self._processor.EncodeAsIds(list(strings)) if strings else []):
            whole = [*prefix, *pieces]
            truncated += len(whole) > context_length - 1
            kept = [*whole[: context_length - 1], self.eos_id]
            ids[row, : len(kept)] = kept
            mask[row, : len(kept)] = True
        return ids, mask, truncated

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn one row of ids back into text; padding, begin and end are left out."""
        special = {self.pad_id, self.bos_id, self.eos_id}
        return self._processor.DecodeIds([int(i) for i in ids if int(i) not in special])

    def to_meta(self) -> dict[str, Any]:
        """Return the tokenizer as a JSON value, as a checkpoint holds it."""
        return {"kind": "sentencepiece", "model_base64": base64.b64encode(self.model).decode("ascii")}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "Tokenizer":
        """Build from what `to_meta` gave.

        Raises:
          UserError: the meta is of another kind of tokenizer.
        """
        if meta.get("kind") != "sentencepiece":
            raise UserError(
                f"the checkpoint's tokenizer is of kind {meta.get('kind')!r}, this version reads 'sentencepiece'; "
                "load the checkpoint with the version that wrote it"
            )
        return cls.from_model(base64.b64decode(meta["model_base64"]))


def _sentences(captions: Iterable[str]) -> list[str]:
    """Captions as the trainer takes them: one line each, none empty, none too long, not too many."""
    words = [caption.split() for caption in captions]
    lines = [" ".join(w[i : i + _MAX_WORDS]) for w in words for i in range(0, len(w), _MAX_WORDS)]
    step = -(-len(lines) // _MAX_SENTENCES) if lines else 1
    return lines[::step]


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
