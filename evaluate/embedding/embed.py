"""Embed a split of prepared records with an encoder, and keep the embeddings so that a report can be re-made."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base.errors import UserError, unknown
from ...data.options import DataOptions, FeedOptions
from ...encode.encoder import Encoder
from ...encode.rows import rounded_up
from ..measures.rows import unit_pair, unit_rows
from ..npz import read_npz, write_npz
from ..protocols.controls import CONTROLS, about_controls, change_texts, choose
from ..protocols.minimal_pairs import Foils
from ..protocols.pairs import about_pairs, choose_pairs, sides_to_embed
from ..protocols.words import ENGLISH
from .clips import Captions, ClipEmbedder, protocol_of_clips
from .loaded import PLAIN, LoadedSplit, Tokens

if TYPE_CHECKING:
    from ...data.batches.records import Records

_CONTROL, _SIDE, _SOUND, _BANK = "control_", "side_", "has_sound", "bank_text"  # arrays of the file
_WINDOWS = "video_windows"


@dataclasses.dataclass(kw_only=True)
class Embeddings:
    """The embeddings of a split and what the report says about them.

    Attributes:
      text: float32 [n,E], one row per caption.
      video: float32 [m,E], one row per clip, in record order.
      video_of_text: int64 [n], each caption's clip.
      controls: control -> the embeddings that it changes, float32 [m,E] of clips or [n,E] of texts.
      sides: further sides of the model -> float32 [m,E]; [n,E] of a fused side with text.
      has_sound: bool [m], clips with sound; None where no side hears it.
      foils: wrong captions for minimal pairs, or None.
      bank_text: float32 [b,E], captions of another split, the query bank of QB-norm; or None.
      video_windows: float32 [m,V,E], the embedding of each window of a clip, of which `video` is the mean; or None.
      captions: the n texts; empty where only arrays are known.
      rows: the m lines of `clips.jsonl`; empty where only arrays are known.
      protocol: see `retrieval.protocol_of`.
      coverage: see `retrieval.coverage_of`, or None where unknown.
      further: what is known of the blocks "controls" and "pairs" of the report, see `controls.about_controls`.
    """

    text: np.ndarray
    video: np.ndarray
    video_of_text: np.ndarray
    controls: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sides: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    has_sound: np.ndarray | None = None
    foils: Foils | None = None
    bank_text: np.ndarray | None = None
    video_windows: np.ndarray | None = None
    captions: list[str] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] | None = None
    further: dict[str, Any] = dataclasses.field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write an `.npz` (no pickle): `text, video, video_of_text`, `about` (JSON bytes) and, if any, `control_NAME`,
        `side_NAME`, `has_sound`, `bank_text`, `video_windows` and the arrays of `Foils`.

        It is written atomically, see `npz.write_npz`.
        """
        about = {key: getattr(self, key) for key in _ABOUT}
        arrays = {"text": self.text, "video": self.video, "video_of_text": self.video_of_text}
        arrays |= {f"{_CONTROL}{name}": rows for name, rows in self.controls.items()}
        arrays |= {f"{_SIDE}{name}": rows for name, rows in self.sides.items()}
        for name in (_SOUND, _BANK, _WINDOWS):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        if self.foils is not None:
            arrays |= self.foils.to_arrays()
        packed = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), dtype=np.uint8)
        write_npz(path, about=packed, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Embeddings":
        """Read an `.npz` of this class or any with `text [n,E]`, `video [m,E]` and `video_of_text int [n]`.

        Raises:
          UserError: no such file, no `.npz`, a missing key, arrays that do not fit together, or rows that are zero or
            not finite.
        """
        arrays = read_npz(Path(path), wanted={"text": "[n,E]", "video": "[m,E]", "video_of_text": "int [n]"})
        text, video, video_of_text = (arrays[key] for key in ("text", "video", "video_of_text"))
        found = cls(
            text=text,
            video=video,
            video_of_text=video_of_text,
            controls={name.removeprefix(_CONTROL): rows for name, rows in arrays.items() if name.startswith(_CONTROL)},
            sides={name.removeprefix(_SIDE): rows for name, rows in arrays.items() if name.startswith(_SIDE)},
            has_sound=arrays.get(_SOUND),
            bank_text=arrays.get(_BANK),
            video_windows=arrays.get(_WINDOWS),
        )
        try:
            unit_pair(found.text, video=found.video, video_of_text=found.video_of_text)
            found.check_further()
            found.foils = Foils.of(arrays, texts=len(found.text))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if "about" in arrays:
            for key, value in _about(arrays["about"], path=path, lengths=(len(found.text), len(found.video))).items():
                setattr(found, key, value)
        return found

    def check_further(self) -> None:
        """Raise UserError for arrays of controls, sides or sound that do not fit to the others."""
        for name, rows in self.controls.items():
            if name not in CONTROLS:
                raise unknown(f"control of the array '{_CONTROL}{name}':", name, CONTROLS)
            _check_shape(rows, like=getattr(self, CONTROLS[name].side), name=f"{_CONTROL}{name}")
        for name, rows in self.sides.items():
            _check_shape(rows, like=self.text if "text" in name.split("+") else self.video, name=f"{_SIDE}{name}")
        sound = self.has_sound
        if sound is not None and (sound.dtype != bool or sound.shape != (len(self.video),)):
            raise UserError(f"'{_SOUND}' is {sound.dtype} {sound.shape}; wanted bool [{len(self.video)}]")
        if self.bank_text is not None and unit_rows(self.bank_text, name=_BANK).shape[1] != self.text.shape[1]:
            raise UserError(f"'{_BANK}' has width {self.bank_text.shape[1]} and 'text' has {self.text.shape[1]}")
        windows = self.video_windows
        if windows is not None and (windows.ndim != 3 or windows[:, 0].shape != self.video.shape):
            raise UserError(f"'{_WINDOWS}' has shape {windows.shape}; wanted [m,V,E] with 'video' {self.video.shape}")

    @property
    def groups(self) -> list[str | None]:
        """The group of each clip, None for a clip that is in none."""
        return [row.get("group") for row in self.rows] or [None] * len(self.video)


_ABOUT = ("captions", "rows", "protocol", "coverage", "further")


def _check_shape(rows: np.ndarray, *, like: np.ndarray, name: str) -> None:
    if rows.shape != like.shape:
        raise UserError(f"{name!r} has shape {rows.shape}; wanted {like.shape}")


def _about(packed: np.ndarray, *, path: Path, lengths: tuple[int, int]) -> dict[str, Any]:
    try:
        about = json.loads(packed.tobytes())
        about = {key: about[key] for key in _ABOUT}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: array 'about' is not the JSON that twinreel writes: {error!r}") from error
    got = (len(about["captions"]), len(about["rows"]))
    if any(size not in (0, length) for size, length in zip(got, lengths, strict=True)):
        raise UserError(
            f"{path}: 'about' describes {got[0]} captions and {got[1]} clips, the arrays have {lengths[0]} and "
            f"{lengths[1]} rows; drop the array 'about' or write the file again"
        )
    return about


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
    """

    bank_split: str = ""
    keep_windows: bool = False
    controls: Sequence[str] = ()
    seed: int = 0
    tagger: str = ENGLISH
    pairs: Sequence[str] = ()


def embed_split(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    captions: str = "all",
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    asked: Asked | None = None,
    progress: bool = True,
    prompt: str = PLAIN,
    loaded: LoadedSplit | None = None,
) -> Embeddings:
    """Embed every clip of a split (with its sound where the model fuses both), its captions and their foils.

    The rows of a batch are split over the devices, and over the processes that decode them. All processes must call
    this; each gets all embeddings. A clip without a caption is embedded too: the captions of others are measured
    against it (the protocol counts such clips as `videos_without_text`).

    Args:
      encoder: the model with its tokenizer and its input.
      records: the opened folder of prepared records.
      split: which split.
      captions: "all" of each clip, or its "first".
      clip_side: what stands for a clip, "video" or the encoder's `clip_side`, which "" means.
      batch_size: rows of a global batch; rounded up to a multiple of the devices. The last batch is padded, so the
        model compiles once.
      feed: how records become batches; its `eval_clips` and `window_seconds` apply. None = whole clips.
      asked: what else is embedded; None = nothing.
      progress: draw a progress bar with rate and time left on standard error, on the first process.
      prompt: template that captions and foils are put into; with `loaded`, its prompt applies.
      loaded: `LoadedSplit(records, split=split, captions=captions)`, perhaps of a part of the clips, for a split that
        is embedded several times; None = it is loaded here.

    Raises:
      UserError: no such split, no caption in it, an unknown value of `captions` or `clip_side`, a batch size below 1,
        or something asked for that the model or the data do not have.
    """
    loaded = loaded or LoadedSplit(records, split=split, captions=captions, prompt=prompt)
    asked, side = asked or Asked(), clip_side or encoder.clip_side
    size = _batch_size(encoder, split=split, clip_side=clip_side, batch_size=batch_size, records=records)
    texts, tokens = loaded.texts, loaded.tokens(encoder)
    controls, sides, further = _choose(encoder, loaded.rows, side=side, asked=asked)
    text = tokens.embed(encoder, what="captions", batch_size=size, progress=progress)
    given: dict[str, Any] = {"asked": asked, "prompt": loaded.prompt, "batch_size": size, "progress": progress}
    of_words = _embed_words(encoder, texts, names=controls, **given)
    with_text = [name for name in sides if "text" in name.split("+")]
    clips, protocol = embed_clips(
        encoder,
        records=records,
        split=split,
        clip_side=clip_side,
        batch_size=size,
        feed=feed,
        controls=[name for name in controls if name not in of_words],
        control_seed=asked.seed,
        sides=sides,
        captions=Captions(tokens, video_of_text=loaded.video_of_text) if with_text else None,
        progress=progress,
        only=loaded.only,
        keep_views=asked.keep_windows,
    )
    if "controls" in further:
        further["controls"]["changed"] = clips.changed | {name: changed for name, (_, changed) in of_words.items()}
    return Embeddings(
        text=text,
        video=clips.found(),
        video_of_text=loaded.video_of_text,
        controls={name: of_words[name][0] if name in of_words else clips.found(name) for name in controls},
        sides={name: clips.found(name, what=texts if name in with_text else None) for name in sides},
        has_sound=clips.has_sound,
        captions=texts,
        rows=loaded.rows,
        foils=_embed_foils(loaded, encoder=encoder, batch_size=size, progress=progress),
        bank_text=_embed_bank(encoder, records=records, **given) if asked.bank_split else None,
        video_windows=clips.views() if asked.keep_windows else None,
        protocol=protocol
        | {
            "captions": loaded.captions,
            "prompt": loaded.prompt,
            "texts_truncated": tokens.truncated,
            "bank_split": asked.bank_split or None,
        },
        further=further,
    )


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


def _embed_bank(
    encoder: Encoder, *, records: "Records", asked: Asked, prompt: str, batch_size: int, progress: bool
) -> np.ndarray:
    """Return the embeddings [b,E] of all captions of the bank's split."""
    bank = LoadedSplit(records, split=asked.bank_split, prompt=prompt)
    return bank.tokens(encoder).embed(encoder, what="query bank", batch_size=batch_size, progress=progress)


def _embed_words(
    encoder: Encoder,
    texts: list[str],
    *,
    names: Sequence[str],
    asked: Asked,
    prompt: str,
    batch_size: int,
    progress: bool,
) -> dict[str, tuple[np.ndarray, int]]:
    """Return the embeddings [n,E] under each of the controls that change texts, and how many they change."""
    found = {}
    for name in names:
        if CONTROLS[name].side == "text":
            changed = change_texts(texts, name=name, seed=asked.seed, tagger=asked.tagger)
            tokens = Tokens.of(encoder, texts=changed, prompt=prompt)
            rows = tokens.embed(encoder, what=name, batch_size=batch_size, progress=progress)
            found[name] = rows, sum(a != b for a, b in zip(texts, changed, strict=True))
    return found


def embed_clips(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    controls: Sequence[str] = (),
    control_seed: int = 0,
    sides: Sequence[str] = (),
    captions: Captions | None = None,
    progress: bool = True,
    only: np.ndarray | None = None,
    keep_views: bool = False,
) -> tuple[ClipEmbedder, dict[str, Any]]:
    """Embed every clip of a split, or only those of `only` int [m] (rising).

    Other arguments and errors as in `embed_split` and `ClipEmbedder`.

    Returns:
      What was found, and its protocol.
    """
    size = _batch_size(encoder, split=split, clip_side=clip_side, batch_size=batch_size, records=records)
    side = clip_side or encoder.clip_side
    feed = dataclasses.replace(feed or FeedOptions(batch_size=size), dir=str(records.folder), mixture={})
    data = DataOptions(input=encoder.input, feed=feed)
    clips = ClipEmbedder(
        encoder,
        records=records,
        split=split,
        only=only,
        side=side,
        controls=controls,
        seed=control_seed,
        sides=sides,
        captions=captions,
        keep_views=keep_views,
    )
    clips.embed(data, batch_size=size, progress=progress)
    return clips, protocol_of_clips(data, split=split, records=records, side=side)


def _batch_size(encoder: Encoder, *, split: str, clip_side: str, batch_size: int, records: "Records") -> int:
    """Check what is asked for, and return the rows of a global batch."""
    if split not in records.splits:
        raise unknown("split", split, records.splits)
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
