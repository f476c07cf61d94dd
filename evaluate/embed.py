"""Embed a split of prepared records with an encoder, and keep the embeddings so that a report can be re-made."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..base.errors import UserError, unknown
from ..data.options import DataOptions, FeedOptions
from ..encode.encoder import Encoder
from ..encode.rows import rounded_up
from ..encode.views import embed_views
from ..engine.start.processes import in_step
from .loaded import LoadedSplit, Tokens
from .measures.rows import check_pair
from .npz import read_npz, write_npz
from .progress import track
from .protocols.minimal_pairs import Foils

if TYPE_CHECKING:
    from ..data.batches.records import Records

_SOUND = ("audio", "audio_mask", "audio_samples")  # what a batch has of the sound of clips


@dataclasses.dataclass(kw_only=True)
class Embeddings:
    """The embeddings of a split and what the report says about them.

    Attributes:
      text: float32 [n,E], one row per caption.
      video: float32 [m,E], one row per clip, in record order.
      video_of_text: int64 [n], each caption's clip.
      video_shuffled: float32 [m,E] of the same clips with shuffled frames, or None.
      foils: wrong captions for minimal pairs, or None.
      captions: the n texts; empty where only arrays are known.
      rows: the m lines of `clips.jsonl`; empty where only arrays are known.
      protocol: see `retrieval.protocol_of`.
      coverage: see `retrieval.coverage_of`, or None where unknown.
    """

    text: np.ndarray
    video: np.ndarray
    video_of_text: np.ndarray
    video_shuffled: np.ndarray | None = None
    foils: Foils | None = None
    captions: list[str] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write an `.npz` (no pickle): `text, video, video_of_text`, `about` (JSON bytes) and, if any, `video_shuffled`
        and the arrays of `Foils`.

        The file is whole or absent: it is written beside its place and renamed.
        """
        about = {key: getattr(self, key) for key in ("captions", "rows", "protocol", "coverage")}
        arrays = {"text": self.text, "video": self.video, "video_of_text": self.video_of_text}
        if self.video_shuffled is not None:
            arrays["video_shuffled"] = self.video_shuffled
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
        shuffled = arrays.get("video_shuffled")
        found = cls(text=text, video=video, video_of_text=video_of_text, video_shuffled=shuffled)
        try:
            check_pair(found.text, video=found.video, video_of_text=found.video_of_text)
            if found.video_shuffled is not None and found.video_shuffled.shape != found.video.shape:
                shapes = f"{found.video_shuffled.shape}; wanted that of 'video', {found.video.shape}"
                raise UserError(f"'video_shuffled' has shape {shapes}")
            found.foils = Foils.of(arrays, texts=len(found.text))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if "about" in arrays:
            for key, value in _about(arrays["about"], path=path, lengths=(len(found.text), len(found.video))).items():
                setattr(found, key, value)
        return found

    @property
    def groups(self) -> list[str | None]:
        """The group of each clip, None for a clip that is in none."""
        return [row.get("group") for row in self.rows] or [None] * len(self.video)


def _about(packed: np.ndarray, *, path: Path, lengths: tuple[int, int]) -> dict[str, Any]:
    try:
        about = json.loads(packed.tobytes())
        about = {key: about[key] for key in ("captions", "rows", "protocol", "coverage")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: array 'about' is not the JSON that twinreel writes: {error!r}") from error
    got = (len(about["captions"]), len(about["rows"]))
    if any(size not in (0, length) for size, length in zip(got, lengths, strict=True)):
        raise UserError(
            f"{path}: 'about' describes {got[0]} captions and {got[1]} clips, the arrays have {lengths[0]} and "
            f"{lengths[1]} rows; drop the array 'about' or write the file again"
        )
    return about


def embed_split(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    captions: str = "all",
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    shuffle_frames_seed: int | None = None,
    progress: bool = True,
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
      shuffle_frames_seed: embed the clips a second time with their frames in a random order (`video_shuffled`).
      progress: draw a progress bar with rate and time left on standard error, on the first process.
      loaded: `LoadedSplit(records, split=split, captions=captions)`, perhaps of a part of the clips, for a split that
        is embedded several times; None = it is loaded here.

    Raises:
      UserError: no such split, no caption in it, an unknown value of `captions` or `clip_side`, a batch size below 1.
    """
    loaded = loaded or LoadedSplit(records, split=split, captions=captions)
    size = _batch_size(encoder, split=split, clip_side=clip_side, batch_size=batch_size, records=records)
    tokens = loaded.tokens(encoder)
    text = tokens.embed(encoder, what="captions", batch_size=size, progress=progress)
    videos, protocol = embed_clips(
        encoder,
        records=records,
        split=split,
        clip_side=clip_side,
        batch_size=size,
        feed=feed,
        shuffle_frames_seed=shuffle_frames_seed,
        progress=progress,
        only=loaded.only,
    )
    return Embeddings(
        text=text,
        video=videos[0],
        video_of_text=loaded.video_of_text,
        video_shuffled=videos[1],
        captions=loaded.texts,
        rows=loaded.rows,
        foils=_embed_foils(loaded, encoder=encoder, batch_size=size, progress=progress),
        protocol=protocol | {"captions": loaded.captions, "texts_truncated": tokens.truncated},
    )


def embed_clips(
    encoder: Encoder,
    *,
    records: "Records",
    split: str,
    clip_side: str = "",
    batch_size: int = 32,
    feed: FeedOptions | None = None,
    shuffle_frames_seed: int | None = None,
    progress: bool = True,
    only: np.ndarray | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray | None], dict[str, Any]]:
    """Embed every clip of a split, or only those of `only` int [m] (rising), without texts.

    Other arguments and errors as in `embed_split`.

    Returns:
      float32 [m,E] in record order, the same with shuffled frames (or None), and the protocol of both.
    """
    size = _batch_size(encoder, split=split, clip_side=clip_side, batch_size=batch_size, records=records)
    side = clip_side or encoder.clip_side
    feed = dataclasses.replace(feed or FeedOptions(batch_size=size), dir=str(records.folder), mixture={})
    data = DataOptions(input=encoder.input, feed=feed)
    videos = _Videos(encoder, records=records, split=split, side=side, only=only, seed=shuffle_frames_seed)
    videos.embed(data, batch_size=size, progress=progress)
    shuffled = None if shuffle_frames_seed is None else videos.found(shuffled=True)
    return (videos.found(), shuffled), _protocol(data, split=split, records=records) | {"clip_side": side}


def _batch_size(encoder: Encoder, *, split: str, clip_side: str, batch_size: int, records: "Records") -> int:
    """Check what is asked for, and return the rows of a global batch."""
    if split not in records.splits:
        raise unknown("split", split, records.splits)
    if clip_side not in ("", "video", encoder.clip_side):
        raise unknown("side of clips (--clip_side)", clip_side, {"video", encoder.clip_side})
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; wanted 1 or more (--batch_size)")
    return rounded_up(batch_size, mesh=encoder.mesh)


def _protocol(data: DataOptions, *, split: str, records: "Records") -> dict[str, Any]:
    spec, feed = data.input, data.feed
    return {
        "dataset": records.folder.resolve().name,
        "split": split,
        "fps": records.options.get("fps"),
        "short_side": records.options.get("short_side"),
        "frames": spec.num_frames,
        "sampling": spec.eval_sampling,
        "windows": feed.eval_clips,
        "window_seconds": feed.window_seconds,
        "preprocessing": spec.eval_video,
        "text_cleaning": spec.text,
        "context_length": spec.context_length,
    }


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


class _Videos:
    """The clips of a split, embedded batch by batch; each record is read and decoded once, by one process."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        records: "Records",
        split: str,
        side: str,
        only: np.ndarray | None,
        seed: int | None,
    ):
        self._encoder, self._records, self._split, self._side, self._seed = encoder, records, split, side, seed
        self._clips = np.arange(len(records.rows(split))) if only is None else np.asarray(only, np.int64)
        self._plain: dict[int, np.ndarray] = {}
        self._shuffled: dict[int, np.ndarray] = {}
        towers = encoder.spec.towers
        self._features = encoder.spec.features["video"] if towers["video"]["family"] == "features" else ""
        self._key = f"features_{self._features}" if self._features else "video"
        self._first: dict[bytes, int] = {}  # clips of equal frames get one embedding, as equal texts do

    def embed(self, data: DataOptions, *, batch_size: int, progress: bool) -> None:
        """Embed all clips; every process must call it."""
        from ..data.batches.pipeline import eval_batches

        if self._features:
            data = data.replace(num_frames=0, features={self._features: data.input.num_frames})
        batches = eval_batches(
            data,
            tokenizer=self._encoder.tokenizer,
            split=self._split,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            only=self._clips,
            records=self._records,
        )
        total = len(self._clips)
        for batch in track(in_step(batches), what="clips", total=total, batch_size=batch_size, progress=progress):
            clip, video = batch["clip_index"], batch[self._key]
            sound = {key: batch[key] for key in _SOUND if self._side != "video"}
            seen = [_digest(*(column[row] for column in (video, *sound.values()))) for row in range(len(video))]
            rest = {"clip": clip, "digest": np.stack(seen)}
            real = np.ones(video.shape[:2], bool)
            if self._features:
                rest["video_mask"] = real = batch[f"{self._key}_mask"]
            self._take(self._views(video, sound=sound, rest=rest), into=self._plain)
            if self._seed is not None:
                keys = [(self._seed, max(int(c), 0)) for c in clip]
                mixed = [_shuffled(v, key=key, real=mask) for v, key, mask in zip(video, keys, real, strict=True)]
                self._take(self._views(np.stack(mixed), sound=sound, rest=rest), into=self._shuffled)

    def found(self, *, shuffled: bool = False) -> np.ndarray:
        """Return float32 [m,E] in record order.

        Raises:
          UserError: a clip that the input pipeline did not give.
        """
        found = self._shuffled if shuffled else self._plain
        clips = self._clips.tolist()
        if lost := [clip for clip in clips if clip not in found]:
            first = self._records.rows(self._split)[lost[0]]["clip_id"]
            raise UserError(
                f"the input pipeline gave {len(found)} of the {len(clips)} clips of split {self._split!r} (first "
                f"missing: {first!r}); the records are damaged: prepare the data set again"
            )
        return np.stack([found[clip] for clip in clips])

    def _views(
        self, video: np.ndarray, *, sound: dict[str, np.ndarray], rest: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Embed this process's rows; returns those of all processes. Each window has its own sound."""
        got: dict[str, np.ndarray] = {}
        views = video.shape[1] if video.ndim == 6 else 1
        numbers = iter(range(views))  # `embed_views` calls once for each view, in order

        def embed(view: np.ndarray) -> np.ndarray:
            number = next(numbers)
            heard = {key: _of_view(key, value, number=number, views=views) for key, value in sound.items()}
            rows = {"video": view, **heard, **rest}
            got.update(self._encoder.embed_local(rows, side=self._side))
            return got["embedding"]

        embedding = embed_views(embed, video)
        return got | {"embedding": embedding}

    def _take(self, got: dict[str, np.ndarray], *, into: dict[int, np.ndarray]) -> None:
        for clip, digest, row in zip(got["clip"].tolist(), got["digest"], got["embedding"], strict=True):
            if clip >= 0:
                same = self._first.setdefault(digest.tobytes(), clip)
                into[clip] = into[same] if same in into and into is self._plain else row


def _of_view(key: str, column: np.ndarray, *, number: int, views: int) -> np.ndarray:
    """Return what belongs to one of the views of each row: views come window by window, sound has one row for each."""
    if column.ndim == (2 if key == "audio" else 1):
        return column
    return np.ascontiguousarray(column[:, number * column.shape[1] // views])


def _digest(*parts: np.ndarray) -> np.ndarray:
    """Return int32 [4], equal for equal arrays only."""
    return np.frombuffer(hashlib.blake2b(b"".join(p.tobytes() for p in parts), digest_size=16).digest(), np.int32)


def _shuffled(video: np.ndarray, *, key: tuple[int, int], real: np.ndarray) -> np.ndarray:
    """Put the T frames [T,...], or those of each view [V,T,...], in a random order; the same one for the same key.

    Rows of features [T,C] that are padding (`real` [T] is False) stay where they are, behind the others.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    if video.ndim == 2:
        count = int(np.sum(real))
        return np.concatenate([video[generator.permutation(count)], video[count:]])
    views = video[None] if video.ndim == 4 else video
    mixed = np.stack([view[generator.permutation(len(view))] for view in views])
    return mixed.reshape(video.shape)
