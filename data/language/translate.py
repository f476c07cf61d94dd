"""Translation of the texts of a manifest, with the originals kept."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...base.chat import Chat
from ...base.errors import UserError, unknown
from ..clip import Clip
from ..journal import Journal
from ..manifest import read_manifest, write_manifest
from ..paths import folder_of
from .moved import in_folder
from .seq2seq import Seq2SeqOptions, Seq2SeqTranslator
from .translator import ChatTranslator, Translator

FIELDS = ("captions", "transcript", "sentences")
"""Fields of a clip that can be translated."""
ORIGINAL = "original"
"""The key of `meta` under which the texts stand as they were."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslateOptions:
    """What is translated, and how.

    Attributes:
      to: the language, as the model understands it: "de", "German", or a code of a local model.
      of: the language of the texts; "" = the model finds out, or knows.
      fields: of `FIELDS`.
      add: translated captions come behind the original ones, instead of in their place.
      batch: texts of a request, or of a batch, at most.
      parallel: requests, or batches, at a time.
      max_bad_fraction: share of the texts, 0 to 1, that may stay without a translation; they are kept as they are.
    """

    to: str
    of: str = ""
    fields: Sequence[str] = FIELDS
    add: bool = False
    batch: int = 20
    parallel: int = 4
    max_bad_fraction: float = 0.02

    def __post_init__(self):
        if not self.to.strip():
            raise UserError("--to is empty; name a language, as --to German")
        for field in self.fields:
            if field not in FIELDS:
                raise unknown("field (--fields)", field, FIELDS)
        for name, good, wanted in (
            ("fields", bool(self.fields), f"at least one of {', '.join(FIELDS)}"),
            ("batch", self.batch >= 1, "1 or more"),
            ("parallel", 1 <= self.parallel <= 256, "1 to 256"),
            ("max_bad_fraction", 0 <= self.max_bad_fraction <= 1, "a share from 0 to 1"),
        ):
            if not good:
                raise UserError(f"--{name} is {getattr(self, name)!r}, wanted {wanted}")


def translate(
    manifest: Path, *, out: Path, by: Chat | Seq2SeqOptions, options: TranslateOptions, console: Console | None = None
) -> dict[str, Any]:
    """Write a manifest with its texts in another language.

    Each text is translated once, however many clips have it, and kept in `out.translations`, a journal beside the
    manifest, as it comes: the same command resumes. The originals stand under `meta["original"]`; a sentence keeps its
    times, but not those of its words, which are others in another language.

    Args:
      manifest: a `.jsonl`, as `transcribe` writes it.
      out: the manifest to write.
      by: the endpoint, or the local model, that translates.
      options: see `TranslateOptions`.
      console: where the progress bar goes; None = standard error.

    Returns:
      JSON values: `clips`, `texts` (different ones), `reused` (from the journal), `failed`.

    Raises:
      UserError: a fault in the manifest, the options or the local model, no text in the fields, an endpoint that does
        not answer, or too many texts without a translation.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: wanted the name of a manifest, which ends in .jsonl")
    if out.exists() and manifest.exists() and out.samefile(manifest):
        raise UserError(f"--out {out} is the manifest to translate; give the new one another name")
    clips = read_manifest(manifest)
    texts = list(dict.fromkeys(text for clip in clips for text in _texts(clip, fields=options.fields)))
    if not texts:
        raise UserError(f"{manifest} has no text in {', '.join(options.fields)}; choose other --fields")
    with Journal(out.with_name(f"{out.name}.translations")) as journal:
        translator, about = _translator(by, journal=journal, options=options)
        known = {text: found for text in texts if (found := translator.known(text)) is not None}
        missing = [text for text in texts if text not in known]
        failed = _run(translator, missing, known=known, most=options.max_bad_fraction * len(texts), console=console)
    made = [_translated(clip, known=known, options=options) for clip in clips]
    root = folder_of(manifest)
    write_manifest(out, clips=[in_folder(clip, root=root, folder=out.parent) for clip in made])
    counts = {"clips": len(clips), "texts": len(texts), "reused": len(texts) - len(missing), "failed": failed}
    return counts | {"to": options.to, **about, "out": str(out)}


def _translator(
    by: Chat | Seq2SeqOptions, *, journal: Journal, options: TranslateOptions
) -> tuple[Translator, dict[str, Any]]:
    """Return what translates, and JSON values that say what it is."""
    how = {"journal": journal, "to": options.to, "of": options.of}
    how |= {"batch": options.batch, "parallel": options.parallel}
    if isinstance(by, Chat):
        return ChatTranslator(by, **how), {"endpoint": by.options.shown, "llm": by.options.model}
    made = Seq2SeqTranslator(by, **how)
    return made, {"model": by.folder.resolve().name, "sha256": made.sha256, "beams": by.beams}


def _run(
    translator: Translator, texts: Sequence[str], *, known: dict[str, str], most: float, console: Console | None
) -> int:
    """Translate texts into `known`; return how many have no translation, at most `most`."""
    failed = 0
    columns = (TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bar:
        for text, translation in bar.track(translator.run(texts), total=len(texts)):
            if translation is not None:
                known[text] = translation
                continue
            failed += 1
            if failed > most:
                raise UserError(
                    f"{failed} texts have no translation, such as {text[:80]!r}: {translator.last}; take another "
                    "model, a smaller --batch or more --max_tokens, or raise --max_bad_fraction. What was translated "
                    "is kept"
                )
    return failed


def _texts(clip: Clip, *, fields: Sequence[str]) -> Iterable[str]:
    """The texts of a clip that have something in them."""
    found: list[str] = []
    if "captions" in fields:
        found += clip.captions
    if "sentences" in fields:
        found += [sentence.text for sentence in clip.sentences]
    if "transcript" in fields and not _is_joined(clip, fields=fields):
        found.append(clip.transcript)
    return (text for text in found if text.strip())


def _is_joined(clip: Clip, *, fields: Sequence[str]) -> bool:
    """Whether the transcript is nothing but the sentences, and is translated with them."""
    return "sentences" in fields and clip.transcript == " ".join(sentence.text for sentence in clip.sentences)


def _translated(clip: Clip, *, known: dict[str, str], options: TranslateOptions) -> Clip:
    """A clip with the translations of its texts; a text without one stays."""
    new: Callable[[str], str] = lambda text: known.get(text, text)  # noqa: E731
    changed: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    if "captions" in options.fields and clip.captions:
        made = [new(caption) for caption in clip.captions]
        changed["captions"] = tuple(dict.fromkeys([*clip.captions, *made])) if options.add else tuple(made)
        kept["captions"] = list(clip.captions)
    if "sentences" in options.fields and clip.sentences:
        changed["sentences"] = tuple(
            dataclasses.replace(one, text=new(one.text), words=() if one.text in known else one.words)
            for one in clip.sentences
        )
        kept["sentences"] = [sentence.to_json() for sentence in clip.sentences]
    if "transcript" in options.fields and clip.transcript:
        joined = _is_joined(clip, fields=options.fields)
        parts = [new(one.text) for one in clip.sentences] if joined else [new(clip.transcript)]
        changed["transcript"] = " ".join(parts)
        kept["transcript"] = clip.transcript
    if not kept:
        return clip
    before = clip.meta.get(ORIGINAL)
    original = before if isinstance(before, dict) else kept  # of a translation of a translation, the first texts
    meta = {**clip.meta, ORIGINAL: {**kept, **original}, "language": options.to}
    return dataclasses.replace(clip, **changed, meta=meta)
