"""The tokenizer's files as transformers reads them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import normalizers

from ...base.errors import UserError
from ...data.text.hf import HfTokenizer
from ...data.text.pieces import SentencePieceTokenizer
from ...data.text.tokenizer import Tokenizer, tokenizer_from_meta, tokenizer_to_files
from ...data.text.words import WordTokenizer
from ..spec import ModelSpec

MODES = ("public", "own", "none")
"""What `--tokenizer` takes."""
CONFIG = "tokenizer_config.json"
_CLIP_END = "</w>"
_LAYOUTS = {
    (False, True, "</s>"): "SiglipTokenizer",
    (False, True, "<pad>"): "T5Tokenizer",
    (False, False, "<pad>"): "VideoPrismTokenizer",
}
"""(begin token, end token, padding token) around SentencePiece -> its class in transformers."""
_CLEANED = {"SiglipTokenizer": "canonicalize"}
"""Class of transformers -> the text cleaning that it does itself."""


def write_tokenizer(spec: ModelSpec, *, folder: Path, mode: str) -> list[str]:
    """Write the tokenizer's files.

    Args:
      spec: the model.
      folder: receives them.
      mode: "public": files from which transformers makes the same ids, or an error; "own": only the tokenizer's own
        file; "none": nothing.

    Returns:
      What the user should know.

    Raises:
      UserError: with "public" a tokenizer that no class of transformers reads.
    """
    if not spec.tokenizer or mode == "none" or "text" not in spec.towers:
        return [] if "text" not in spec.towers else ["the folder has no tokenizer: texts go in as token ids"]
    tokenizer = tokenizer_from_meta(dict(spec.tokenizer))
    check_vocabulary(spec, tokenizer=tokenizer)
    if mode == "own":
        tokenizer_to_files(tokenizer, folder=folder)
        about = ", ".join(f"{name}={value}" for name, value in tokenizer.layout().items())
        return [f"the tokenizer's own file {tokenizer.FILE} ({about}) is there, but none that transformers reads"]
    if isinstance(tokenizer, HfTokenizer):
        return _of_tokenizers(tokenizer, spec=spec, folder=folder)
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _of_pieces(tokenizer, spec=spec, folder=folder)
    kind = "word vectors" if isinstance(tokenizer, WordTokenizer) else type(tokenizer).__name__
    raise UserError(_refusal(f"a list of {kind}", "words"))


def check_vocabulary(spec: ModelSpec, *, tokenizer: Tokenizer) -> None:
    """Check that the text tower knows all ids of the tokenizer.

    Raises:
      UserError: the tokenizer belongs to another model.
    """
    known = spec.towers["text"].get("vocab_size")
    if known is not None and tokenizer.vocab_size > known:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the text tower knows config.model.text.vocab_size="
            f"{known:,}: it belongs to another model; give --tokenizer none to export the towers alone"
        )


def _refusal(kind: str, layout: str) -> str:
    return (
        f"the model's tokenizer is {kind} ({layout}), which no tokenizer class of transformers reads with the same "
        "ids; choose --tokenizer own to write its own file beside the towers, --tokenizer none to export the towers "
        "alone, or --format stablehlo"
    )


def _of_tokenizers(tokenizer: HfTokenizer, *, spec: ModelSpec, folder: Path) -> list[str]:
    backend = tokenizers.Tokenizer.from_str(tokenizer.file_bytes().decode("utf-8"))
    notes, cleaning = [], spec.input.text
    if cleaning == "lower":
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    elif cleaning:
        notes.append(_cleaning_note(cleaning))
    backend.no_padding()
    backend.no_truncation()
    text = backend.to_str(pretty=True)
    (folder / HfTokenizer.FILE).write_text(text, encoding="utf-8")
    model: Mapping[str, Any] = json.loads(text)["model"]
    names = {"pad": tokenizer.pad_id, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    config: dict[str, Any] = {
        f"{name}_token": backend.id_to_token(number) for name, number in names.items() if number >= 0
    }
    if model.get("unk_token"):
        config["unk_token"] = model["unk_token"]
    kind = "PreTrainedTokenizerFast"
    if model["type"] == "BPE" and model.get("end_of_word_suffix") == _CLIP_END:
        kind = "CLIPTokenizer"
        (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    _write_config(folder, spec=spec, kind=kind, config=config)
    return notes


def _of_pieces(tokenizer: SentencePieceTokenizer, *, spec: ModelSpec, folder: Path) -> list[str]:
    layout, pad = tokenizer.layout(), _padding(tokenizer)
    kind = _LAYOUTS.get((layout["add_bos"], layout["add_eos"], pad))
    if kind is None:
        said = f"begin token: {layout['add_bos']}, end token: {layout['add_eos']}, padding: {pad}"
        raise UserError(_refusal("SentencePiece", said))
    (folder / "spiece.model").write_bytes(tokenizer.file_bytes())
    config: dict[str, Any] = {"pad_token": pad, "unk_token": "<unk>", "eos_token": "</s>"}
    if kind in ("T5Tokenizer", "VideoPrismTokenizer"):
        config["extra_ids"] = 0
    _write_config(folder, spec=spec, kind=kind, config=config)
    cleaning = spec.input.text
    return [_cleaning_note(cleaning)] if cleaning != _CLEANED.get(kind, "") else []


def _padding(tokenizer: SentencePieceTokenizer) -> str:
    return next(
        (name for name in ("<pad>", "</s>") if tokenizer.id_of(name) == tokenizer.pad_id), str(tokenizer.pad_id)
    )


def _write_config(folder: Path, *, spec: ModelSpec, kind: str, config: dict[str, Any]) -> None:
    about = {"tokenizer_class": kind, "model_max_length": spec.input.context_length, "padding_side": "right", **config}
    (folder / CONFIG).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _cleaning_note(cleaning: str) -> str:
    said = f"cleaned by {cleaning!r}" if cleaning else "not cleaned"
    return f"texts are {said} before the tokenizer sees them, which its files do not do; do it before you call it"
