"""Translation by a local folder: Marian (OPUS-MT), NLLB or M2M-100 in the form of CTranslate2, with SentencePiece.

Sources: Junczys-Dowmunt et al. 2018 (Marian); Costa-jussà et al. 2022 (NLLB); Fan et al. 2020 (M2M-100).
"""

import dataclasses
import functools
import hashlib
import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from ...base.errors import UserError, unknown
from ..journal import Journal, key_of
from .translator import Translator

_MARIAN = ("source.spm", "target.spm")
_MANY = ("sentencepiece.bpe.model", "flores200_sacrebleu_tokenizer_spm.model", "spm.128k.model")
_VOCABULARIES = ("shared_vocabulary", "source_vocabulary", "target_vocabulary")
_LANGUAGES = {
    "Marian": re.compile(r">>(.+)<<"),
    "NLLB": re.compile(r"([a-z]{3}_[A-Z][a-z]{3})"),
    "M2M-100": re.compile(r"__([a-z_]+)__"),
}
"""Form of a model -> the tokens of its languages; the group is the code."""
_END = "</s>"
_LONGEST = 512  # tokens of a text, and of its translation: what these models were trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2SeqOptions:
    """A local model, and how it translates.

    Attributes:
      folder: with `model.bin`, `config.json`, the vocabulary and the SentencePiece models.
      beams: hypotheses of the beam search; 1 = greedy.
      device: "auto", "cpu" or "cuda".
      threads: of one batch on a CPU; 0 = as CTranslate2 chooses.
    """

    folder: Path
    beams: int = 4
    device: str = "auto"
    threads: int = 0

    def __post_init__(self):
        if self.device not in ("auto", "cpu", "cuda"):
            raise unknown("--device", self.device, ("auto", "cpu", "cuda"))
        for name, least in (("beams", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Folder:
    """What the files of a model say.

    Attributes:
      form: a key of `_LANGUAGES`.
      languages: code -> token; {} of a Marian model with one target language.
      source: cuts texts into pieces.
      target: joins pieces.
      adds_end: the model puts an end token after a text itself.
    """

    form: str
    languages: dict[str, str]
    source: Any
    target: Any
    adds_end: bool


class Seq2SeqTranslator(Translator):
    """Translates by a local model; nothing is fetched."""

    def __init__(
        self,
        options: Seq2SeqOptions,
        *,
        journal: Journal,
        to: str,
        of: str = "",
        batch: int = 20,
        parallel: int = 4,
    ):
        """Read the files and load the model.

        Args:
          options: see `Seq2SeqOptions`.
          journal: of translations.
          to: the language, a code of the model: "deu_Latn" (NLLB), "de" (M2M-100), "deu" (Marian of several languages);
            of a Marian model of one pair any name.
          of: the language of the texts, likewise; NLLB and M2M-100 need it.
          batch: texts at a time, at most.
          parallel: batches at a time.

        Raises:
          UserError: CTranslate2 is not installed, a file is missing or damaged, or a language that the model lacks.
        """
        super().__init__(journal=journal, batch=batch, parallel=parallel)
        self._options, self._to, self._of = options, to, of
        self._folder = _read(options.folder)
        before, self._prefix = _tokens_of(self._folder, to=to, of=of)
        self._before, self._after = before, [] if self._folder.adds_end else [_END]
        self._model = _load(options, parallel=parallel)

    @functools.cached_property
    def sha256(self) -> str:
        """The digest of the weights."""
        with (self._options.folder / "model.bin").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _key(self, text: str) -> str:
        return key_of(text=text, to=self._to, of=self._of, model=self.sha256, beams=str(self._options.beams))

    def _translate(self, texts: Sequence[str]) -> dict[str, str | None]:
        pieces = {
            text: [*self._before, *self._folder.source.encode(text, out_type=str), *self._after] for text in texts
        }
        short = [text for text in texts if len(pieces[text]) <= _LONGEST]
        found: dict[str, str | None] = dict.fromkeys(texts)
        if len(short) < len(texts):
            self.last = f"a text of more than {_LONGEST} tokens is not translated"
        how = {"beam_size": self._options.beams, "max_decoding_length": _LONGEST, "return_end_token": True}
        prefix = [self._prefix] * len(short) if self._prefix else None
        tokens = [pieces[text] for text in short]
        made = self._model.translate_batch(tokens, target_prefix=prefix, **how) if short else []
        for text, one in zip(short, made, strict=True):
            found[text] = self._text(one.hypotheses[0])
            if found[text] is not None:
                self._journal.put(self._key(text), value=found[text])
        return found

    def _text(self, tokens: Sequence[str]) -> str | None:
        """Return the text of a translation; None of one that does not end, or is empty."""
        if not tokens or tokens[-1] != _END:
            self.last = f"a translation that does not end within {_LONGEST} tokens"
            return None
        text = self._folder.target.decode(list(tokens[len(self._prefix) : -1])).strip()
        if not text:
            self.last = "an empty translation"
        return text or None


def _read(folder: Path) -> _Folder:
    """Read the files of a model, and recognise its form.

    Raises:
      UserError: files that are missing or damaged, or a form that is not known.
    """
    if not folder.is_dir():
        raise UserError(f"--model {folder} is no folder; {_how_to()}")
    missing = [name for name in ("config.json", "model.bin") if not (folder / name).is_file()]
    if missing:
        raise UserError(f"--model {folder} lacks {', '.join(missing)}; {_how_to()}")
    words = _vocabulary(folder)
    many = next((folder / name for name in _MANY if (folder / name).is_file()), None)
    missing = [name for name in _MARIAN if not (folder / name).is_file()]
    if many is None and missing:
        raise UserError(
            f"--model {folder} lacks {', '.join(missing)} (Marian) or sentencepiece.bpe.model (NLLB, M2M-100); copy "
            "them from the original weights"
        )
    if many is not None:
        forms = ("NLLB", "M2M-100")
        known = {form: _languages(words, form=form) for form in forms}
        form = max(forms, key=lambda one: len(known[one]))
        if not known[form]:
            raise UserError(
                f"--model {folder}: its vocabulary has no language of NLLB (deu_Latn) or M2M-100 (__de__); other "
                "models of many languages are not supported"
            )
        source = target = _pieces(many)
    else:
        form, (source, target) = "Marian", (_pieces(folder / name) for name in _MARIAN)
        known = {form: _languages(words, form=form)}
    adds_end = bool(_json(folder / "config.json").get("add_source_eos"))
    return _Folder(form=form, languages=known[form], source=source, target=target, adds_end=adds_end)


def _tokens_of(folder: _Folder, *, to: str, of: str) -> tuple[list[str], list[str]]:
    """Return the tokens before each text, and those with which each translation begins."""
    if not folder.languages:
        return [], []
    if to not in folder.languages:
        raise unknown(f"language of this {folder.form} model (--to)", to, sorted(folder.languages))
    if folder.form == "Marian":
        return [folder.languages[to]], []
    if not of:
        english = "eng_Latn" if folder.form == "NLLB" else "en"
        raise UserError(f"{folder.form} must be told the language of the texts; set --from, as --from {english}")
    if of not in folder.languages:
        raise unknown(f"language of this {folder.form} model (--from)", of, sorted(folder.languages))
    return [folder.languages[of]], [folder.languages[to]]


def _languages(words: Sequence[str], *, form: str) -> dict[str, str]:
    found = ((word, _LANGUAGES[form].fullmatch(word)) for word in words)
    return {match[1]: word for word, match in found if match}


def _vocabulary(folder: Path) -> list[str]:
    words: list[str] = []
    for stem in _VOCABULARIES:
        if (path := folder / f"{stem}.json").is_file():
            words += _json(path)
        elif (path := folder / f"{stem}.txt").is_file():
            words += path.read_text(encoding="utf-8").split("\n")
    if not words:
        raise UserError(f"--model {folder} has no vocabulary (shared_vocabulary.json); {_how_to()}")
    return words


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); convert the model again") from error


def _pieces(path: Path) -> Any:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path} is no SentencePiece model ({error}); copy it again from the original weights"
        ) from error


def _load(options: Seq2SeqOptions, *, parallel: int) -> Any:
    try:
        package: Any = importlib.import_module("ctranslate2")
    except ImportError as error:
        raise UserError("--model needs the package ctranslate2: pip install 'twinreel[translate]'") from error
    how = {"device": options.device, "inter_threads": parallel, "intra_threads": options.threads}
    try:
        return package.Translator(str(options.folder), **how)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--model {options.folder} cannot be loaded ({error}); {_how_to()}") from error


def _how_to() -> str:
    return (
        "`ct2-transformers-converter --model Helsinki-NLP/opus-mt-en-de --copy_files source.spm target.spm "
        "--output_dir FOLDER` writes such a folder"
    )
