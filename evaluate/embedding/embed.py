"""Embed a split of prepared records with an encoder, and keep the embeddings so that a report can be re-made."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError, unknown
from ...data.options import DataOptions, FeedOptions
from ...encode.devices.rows import rounded_up
from ...encode.embed.encoder import Encoder
from ..protocols.controls import CONTROLS, about_controls, change_texts, choose
from ..protocols.joint import JointScores
from ..protocols.minimal_pairs import Foils
from ..protocols.pairs import about_pairs, choose_pairs, sides_to_embed
from ..protocols.words import ENGLISH
from .clips import Captions, ClipEmbedder, FurtherClips, protocol_of_clips
from .embeddings import Embeddings
from .joint import Sides, check_heads, score_jointly
from .loaded import LoadedSplit, Tokens

if TYPE_CHECKING:
    from ...data.batches.records import Records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What else is embedded than the clips and texts as they are.

    Attributes:
      controls: names of `controls.CONTROLS`, or "all".
      seed: of their draws.
      tagger: spaCy model that finds parts of speech.
      pairs: pairs of modalities, see `pairs.choose_pairs`, or "all".
      bank_split: a split whose captions are the query bank of QB-norm; "" = none.
      keep_windows: keep the embedding of each window of a clip as well.
      joint: heads of the model that score texts with clips, see `protocols.scored.joint_asked`.
    """

    bank_split: str = ""
    keep_windows: bool = False
    joint: Mapping[str, int] = dataclasses.field(default_factory=dict)
    controls: Sequence[str] = ()
    seed: int = 0
    tagger: str = ENGLISH
    pairs: Sequence[str] = ()


def embed_split(
    encoder: Encoder,
    *,
    loaded: LoadedSplit,
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    asked: Asked | None = None,
    progress: bool = True,
) -> Embeddings:
    """Embed every clip of a split (with its sound where the model fuses both), its captions and their foils.

    Rows are split over devices and processes; all processes must call this, and each gets all embeddings. A clip
    without a caption is embedded too: the captions of others are measured against it.

    Args:
      encoder: the model with its tokenizer and its input.
      loaded: the split, or a part of its clips; one that is embedded several times is loaded once.
      clip_side: what stands for a clip, "video" or the encoder's `clip_side`, which "" means.
      batch_size: rows of a global batch; rounded up to a multiple of the devices.
      feed: how records become batches; its `eval_clips` and `window_seconds` apply. None = whole clips.
      asked: what else is embedded; None = nothing.
      progress: draw progress bars on standard error, on the first process.

    Raises:
      UserError: an unknown value of `clip_side`, a batch size below 1, or something asked for that the model or the
        data do not have.
    """
    asked, side = asked or Asked(), clip_side or encoder.clip_side
    check_heads(encoder.spec, asked=asked.joint, clip_side=side, source=encoder.source)
    size = _batch_size(encoder, clip_side=clip_side, batch_size=batch_size)
    tokens = loaded.tokens(encoder)
    controls, sides, further = _choose(encoder, loaded.rows, side=side, asked=asked)
    given: dict[str, Any] = {"batch_size": size, "progress": progress}
    text = tokens.embed(encoder, what="captions", **given)
    of_words = _embed_words(encoder, loaded, names=controls, asked=asked, **given)
    captions = Captions(tokens, video_of_text=loaded.video_of_text)
    more = _further(asked, controls=[name for name in controls if name not in of_words], sides=sides, captions=captions)
    where = {"records": loaded.records, "split": loaded.split, "only": loaded.only}
    clips, protocol = embed_clips(encoder, clip_side=clip_side, feed=feed, further=more, **where, **given)
    if "controls" in further:
        further["controls"]["changed"] = clips.changed | {name: changed for name, (_, changed) in of_words.items()}
    protocol |= {"captions": loaded.captions, "prompt": loaded.prompt, "texts_truncated": tokens.truncated}
    return Embeddings(
        text=text,
        video=clips.found(),
        video_of_text=loaded.video_of_text,
        controls={name: of_words[name][0] if name in of_words else clips.found(name) for name in controls},
        sides={name: clips.found(name, what=loaded.texts if _has_text(name) else None) for name in sides},
        has_sound=clips.has_sound,
        captions=loaded.texts,
        rows=loaded.rows,
        foils=_embed_foils(loaded, encoder=encoder, **given),
        bank_text=_embed_bank(encoder, loaded, split=asked.bank_split, **given) if asked.bank_split else None,
        video_windows=clips.views() if asked.keep_windows else None,
        joint=_score_jointly(encoder, text, clips=clips, words=tokens, asked=asked, **given) if asked.joint else {},
        protocol=protocol | {"bank_split": asked.bank_split},
        further=further,
    )


def _further(asked: Asked, *, controls: list[str], sides: Sequence[str], captions: Captions) -> FurtherClips:
    return FurtherClips(
        controls=controls,
        seed=asked.seed,
        sides=sides,
        captions=captions if any(map(_has_text, sides)) else None,
        keep_views=asked.keep_windows,
        keep_tokens=bool(asked.joint),
    )


def _score_jointly(
    encoder: Encoder, text: np.ndarray, *, clips: ClipEmbedder, words: Tokens, asked: Asked, **given: Any
) -> dict[str, JointScores]:
    seen, mask = clips.tokens()
    sides = Sides(text=text, video=clips.found(), words=words, tokens=seen, mask=mask)
    return score_jointly(encoder, sides=sides, asked=asked.joint, **given)


def _has_text(side: str) -> bool:
    return "text" in side.split("+")


def _choose(
    encoder: Encoder, rows: list[dict[str, Any]], *, side: str, asked: Asked
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """Return the controls and the sides to embed, and what the report's blocks say about them."""
    with_sound = sum(bool(row.get("has_audio")) for row in rows)
    frames, heard = encoder.input.num_frames, "audio" in side.split("+")
    facts = {"frames": frames, "heard": heard, "with_sound": with_sound}
    controls, unfit = choose(asked.controls, **facts, tagger=asked.tagger)
    pairs, unfit_pairs = choose_pairs(asked.pairs, spec=encoder.spec, with_sound=with_sound)
    about = {"seed": asked.seed, "unfit": unfit, "tagger": asked.tagger}
    further = {"controls": about_controls(controls, **about)} if asked.controls else {}
    further |= {"pairs": about_pairs(pairs, unfit=unfit_pairs)} if asked.pairs else {}
    return controls, sides_to_embed(pairs, clip_side=side), further


def _embed_bank(encoder: Encoder, loaded: LoadedSplit, *, split: str, batch_size: int, progress: bool) -> np.ndarray:
    """Return the embeddings [b,E] of all captions of the bank's split."""
    bank = LoadedSplit(loaded.records, split=split, prompt=loaded.prompt)
    return bank.tokens(encoder).embed(encoder, what="query bank", batch_size=batch_size, progress=progress)


def _embed_words(
    encoder: Encoder, loaded: LoadedSplit, *, names: Sequence[str], asked: Asked, batch_size: int, progress: bool
) -> dict[str, tuple[np.ndarray, int]]:
    """Return the embeddings [n,E] under each of the controls that change texts, and how many they change."""
    found = {}
    for name in names:
        if CONTROLS[name].side == "text":
            changed = change_texts(loaded.texts, name=name, seed=asked.seed, tagger=asked.tagger)
            tokens = Tokens.of(encoder, texts=changed, prompt=loaded.prompt)
            rows = tokens.embed(encoder, what=name, batch_size=batch_size, progress=progress)
            found[name] = rows, sum(a != b for a, b in zip(loaded.texts, changed, strict=True))
    return found


def embed_clips(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    progress: bool = True,
    only: np.ndarray | None = None,
    further: FurtherClips | None = None,
) -> tuple[ClipEmbedder, dict[str, Any]]:
    """Embed every clip of a split, or only those of `only` int [m] (rising).

    Other arguments and errors as in `embed_split` and `ClipEmbedder`.

    Returns:
      What was found, and its protocol.

    Raises:
      UserError: no such split, too.
    """
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    size = _batch_size(encoder, clip_side=clip_side, batch_size=batch_size)
    side = clip_side or encoder.clip_side
    feed = dataclasses.replace(feed or FeedOptions(batch_size=size), dir=str(records.folder), mixture={})
    data = DataOptions(input=encoder.input, feed=feed)
    clips = ClipEmbedder(encoder, records=records, split=split, only=only, side=side, further=further)
    clips.embed(data, batch_size=size, progress=progress)
    return clips, protocol_of_clips(data, split=split, records=records, side=side)


def _batch_size(encoder: Encoder, *, clip_side: str, batch_size: int) -> int:
    """Check what is asked for, and return the rows of a global batch."""
    if clip_side not in ("", "video", encoder.clip_side):
        raise unknown("side of clips (--clip_side)", clip_side, {"video", encoder.clip_side})
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; wanted 1 or more (--batch_size)")
    return rounded_up(batch_size, mesh=encoder.mesh)


def _embed_foils(loaded: LoadedSplit, *, encoder: Encoder, batch_size: int, progress: bool) -> Foils | None:
    texts, of_text, names = loaded.foils
    if not texts:
        return None
    tokens = loaded.foil_tokens(encoder)
    embedding = tokens.embed(encoder, what="foils", batch_size=batch_size, progress=progress)
    return Foils(embedding=embedding, of_text=of_text, names=np.array(names))


def embed_texts(
    encoder: Encoder, *, texts: list[str], what: str = "captions", batch_size: int, progress: bool
) -> tuple[np.ndarray, int]:
    """Embed texts, as the model's cleaning and context have it; all processes must call this.

    Args:
      encoder: the model with its tokenizer.
      texts: n texts.
      what: name of the progress bar.
      batch_size: rows of a global batch, a multiple of the devices.
      progress: draw a progress bar.

    Returns:
      float32 [n,E], and how many texts were longer than the context.
    """
    tokens = Tokens.of(encoder, texts=texts)
    return tokens.embed(encoder, what=what, batch_size=batch_size, progress=progress), tokens.truncated
