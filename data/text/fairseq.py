"""XLM-R's strings to ids: a SentencePiece model whose pieces fairseq numbers anew. No tensorflow."""

import base64
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...base.errors import UserError
from .pieces import SentencePieceTokenizer

_BOS, _PAD, _EOS, _UNK = range(4)
_OFFSET = 1  # the model has <unk> 0, <s> 1, </s> 2 and pieces from 3 on; fairseq has four special ones before them
_SPECIAL = ("<unk>", "<s>", "</s>")


class FairseqTokenizer(SentencePieceTokenizer):
    """The tokenizer of XLM-R (Conneau et al. 2020): `<s>` text `</s>`, padded with `<pad>`.

    Ids are those of the models: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the pieces, and `<mask>` last.
    """

    KIND: ClassVar[str] = "fairseq_sentencepiece"
    FILE: ClassVar[str] = "sentencepiece.bpe.model"

    def __init__(self, model: bytes) -> None:
        """Wrap a model.

        Args:
          model: the bytes of `sentencepiece.bpe.model`.

        Raises:
          UserError: the bytes are no SentencePiece model, or its first pieces are not those of XLM-R's.
        """
        super().__init__(model, add_bos=False, add_eos=False, pad_id=_PAD)
        first = tuple(self._processor.IdToPiece(i) for i in range(min(3, self._processor.GetPieceSize())))
        if first != _SPECIAL:
            raise UserError(f"sentencepiece.bpe.model begins with the pieces {first}, wanted XLM-R's, {_SPECIAL}")
        self.bos_id, self.eos_id = _BOS, _EOS
        self._mask = self._processor.GetPieceSize() + _OFFSET
        self.vocab_size = self._mask + 1

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn one row of ids back into text; special tokens are left out."""
        return self._processor.DecodeIds([int(i) - _OFFSET for i in ids if _UNK < i < self._mask])

    def id_of(self, piece: str) -> int | None:
        """Return the id of a piece by its name, None if the model lacks it."""
        named = {"<s>": _BOS, "<pad>": _PAD, "</s>": _EOS, "<unk>": _UNK, "<mask>": self._mask}
        if piece in named:
            return named[piece]
        found = super().id_of(piece)
        return None if found is None else found + _OFFSET

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "FairseqTokenizer":
        """Build from what `to_meta` gave."""
        return cls(base64.b64decode(meta["model_base64"]))

    def layout(self) -> dict[str, Any]:
        """Return nothing: the file says it all."""
        return {}

    @classmethod
    def from_bytes(cls, file: bytes, **layout: Any) -> "FairseqTokenizer":
        """Build from what `file_bytes` and `layout` gave."""
        return cls(file, **layout)

    def _pieces(self, strings: Sequence[str]) -> list[list[int]]:
        return [[i + _OFFSET if i else _UNK for i in row] for row in super()._pieces(strings)]
