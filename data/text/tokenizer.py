"""Strings to token ids: what a tokenizer is, and how one is named, loaded, kept and found again. No tensorflow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ...base.errors import UserError
from .. import hub
from . import families
from .fairseq import FairseqTokenizer
from .hf import HfTokenizer
from .pieces import SentencePieceTokenizer
from .words import WordTokenizer, read_vectors

__all__ = [
    "HfTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "tokenizer_from_meta",
]

_Kind = type[HfTokenizer] | type[SentencePieceTokenizer] | type[WordTokenizer]
_KINDS: dict[str, _Kind] = {
    SentencePieceTokenizer.KIND: SentencePieceTokenizer,
    HfTokenizer.KIND: HfTokenizer,
    WordTokenizer.KIND: WordTokenizer,
    FairseqTokenizer.KIND: FairseqTokenizer,
}


class Tokenizer(Protocol):
    """Turns strings into padded rows of token ids, and back.

    Attributes:
      bos_id: the token before each text, -1 if there is none.
      eos_id: the token after each text, -1 if there is none.
      pad_id: what fills the rows; it may be another token's too (CLIP pads with its end token): the mask decides.
      vocab_size: V; every id is below it.
      KIND: names the class in JSON.
      FILE: name of its own file in a bundle.
    """

    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int
    KIND: ClassVar[str]
    FILE: ClassVar[str]

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no part of a text: begin, end, padding, the unknown, and other control tokens."""
        ...

    def encode(self, strings: Sequence[str], *, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return ids int32 [n,L] padded on the right, mask bool [n,L] (True = real), and how many texts were cut."""
        ...

    def lengths(self, strings: Sequence[str]) -> np.ndarray:
        """Return the tokens of each text, special ones included, uncut, int64 [n]."""
        ...

    def unknown_share(self, strings: Sequence[str]) -> float:
        """Return the share of what the texts are made of that the vocabulary has no token for, 0..1."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of one row of ids, without the special tokens."""
        ...

    def to_meta(self) -> dict[str, Any]:
        """Return the tokenizer as a JSON value that needs no file beside it."""
        ...

    def file_bytes(self) -> bytes:
        """Return the content of its own file, named `FILE`."""
        ...

    def layout(self) -> dict[str, Any]:
        """Return what the file does not say: special tokens and padding, as JSON values."""
        ...


def load_tokenizer(name: Path | str, *, fetch: bool = True) -> Tokenizer:
    """Load the tokenizer that `config.data.tokenizer` names, unless that is "train".

    Args:
      name: a SentencePiece `.model` file; a folder as Hugging Face's libraries write it (see `families.read_folder`) or
        its `tokenizer.json`; a file of word vectors (`.vec`, `.txt`), for its words; or `hf:ORGANISATION/NAME`, which
        `huggingface_hub` fetches or finds in its cache.
      fetch: whether the network may be asked; without it a name of the hub must be in the cache.

    Raises:
      UserError: there is no such file, or it holds no tokenizer.
    """
    if hub.is_hub(name):
        what = "tokenizer (config.data.tokenizer)"
        return families.read_folder(hub.fetch(str(name), patterns=families.FILES, what=what, network=fetch))
    path = Path(name)
    if path.is_dir():
        return families.read_folder(path)
    if path.is_file() and path.name == "tokenizer.json":
        return families.read_folder(path.parent)
    if path.is_file() and path.suffix in (".vec", ".txt"):
        return WordTokenizer(read_vectors(path)[0])
    if path.is_file():
        return SentencePieceTokenizer(path.read_bytes())
    raise UserError(
        f"tokenizer {str(path)!r} does not exist; set config.data.tokenizer to a SentencePiece .model file, to a "
        "folder with tokenizer.json, to hf:ORGANISATION/NAME, or to 'train' to train one on the train captions"
    )


def tokenizer_from_meta(meta: dict[str, Any]) -> Tokenizer:
    """Build a tokenizer from what its `to_meta` gave.

    Raises:
      UserError: the meta is of a kind of tokenizer that this version does not know.
    """
    return _kind(meta).from_meta(meta)


def tokenizer_to_files(tokenizer: Tokenizer, *, folder: Path) -> dict[str, Any]:
    """Write a tokenizer's own file, which other libraries read, into `folder`; return the rest of its meta.

    Returns:
      The JSON value of `Tokenizer.to_meta` with the name of the `file` in place of its content.
    """
    kind = type(tokenizer)
    (folder / kind.FILE).write_bytes(tokenizer.file_bytes())
    return {"kind": kind.KIND, "file": kind.FILE, **tokenizer.layout()}


def tokenizer_from_files(meta: dict[str, Any], *, folder: Path) -> Tokenizer:
    """Build a tokenizer from what `tokenizer_to_files` wrote and returned.

    Raises:
      UserError: an unknown kind, or the file is not there.
    """
    kind, path = _kind(meta), folder / str(meta.get("file"))
    if not path.is_file():
        raise UserError(f"{path} does not exist; the tokenizer's file belongs beside spec.json")
    layout = {key: value for key, value in meta.items() if key not in ("kind", "file")}
    return kind.from_bytes(path.read_bytes(), **layout)


def _kind(meta: dict[str, Any]) -> _Kind:
    kind = meta.get("kind")
    if kind not in _KINDS:
        raise UserError(
            f"the checkpoint's tokenizer is of kind {kind!r}, this version reads {', '.join(map(repr, _KINDS))}; "
            "load the checkpoint with the version that wrote it"
        )
    return _KINDS[kind]
