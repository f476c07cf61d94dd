"""Embed the clips of a split: as they are, with part of their input changed, and by other sides of the model."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...base.errors import UserError
from ...data.options import DataOptions
from ...encode.embed.encoder import Encoder
from ...encode.embed.views import mean_of_views
from ...engine.start.processes import in_step
from ..progress import track
from ..protocols.controls import CONTROLS, MUTED, SWAPPED, mute, other_sounds, reorder_frames
from .loaded import Tokens

if TYPE_CHECKING:
    from ...data.batches.records import Records

_SOUND = ("audio", "audio_mask", "audio_samples")
_INPUTS = {"video": ("video", "video_mask"), "audio": _SOUND, "text": ("text", "text_mask")}  # of each modality
PLAIN = ""
"""Name of the clips as they are, beside those of controls and sides."""

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Captions:
    """The n captions of the split, for sides that fuse text with what is seen or heard.

    Attributes:
      tokens: of the captions.
      video_of_text: int64 [n], rising: the row of each caption's clip.
    """

    tokens: Tokens
    video_of_text: np.ndarray

    def of_clips(self, clips: np.ndarray) -> Iterator[Arrays]:
        """Yield for rows of clips [b] their first captions with `row` int64 [b] (-1 = none), then their second ones."""
        counts = np.bincount(self.video_of_text, minlength=int(clips.max(initial=0)) + 1)
        starts = np.cumsum(counts) - counts
        for number in range(int(counts.max())):  # equally often on all processes
            there = (clips >= 0) & (number < counts[clips])
            row = np.where(there, starts[clips] + number, -1)
            place = self.tokens.place[row]
            yield {"row": row, "text": self.tokens.ids[place], "text_mask": self.tokens.mask[place]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FurtherClips:
    """What else is made of the clips of a split than their embeddings.

    Attributes:
      controls: of frames and sound, see `protocols.controls.CONTROLS`.
      seed: of their draws.
      sides: further sides to embed, "video", "audio" or the fused one.
      captions: for a fused side with text.
      keep_views: keep the embedding of each view (or window) of a clip as well, see `ClipEmbedder.views`.
      keep_tokens: keep the video tower's time tokens of each clip as well, see `ClipEmbedder.tokens`.
    """

    controls: Sequence[str] = ()
    seed: int = 0
    sides: Sequence[str] = ()
    captions: Captions | None = None
    keep_views: bool = False
    keep_tokens: bool = False


class ClipEmbedder:
    """The clips of a split, embedded batch by batch; each record is read and decoded once, by one process.

    What is embedded has names: `PLAIN`, controls of frames and sound, and sides of the model.

    Attributes:
      changed: control -> clips whose input it changed.
      has_sound: bool [m], clips with sound; None of a model that hears nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        records: "Records",
        split: str,
        side: str,
        only: np.ndarray | None = None,
        further: FurtherClips | None = None,
    ):
        """Say what is to be embedded.

        Args:
          encoder: the model.
          records: the opened folder.
          split: which split.
          side: what stands for a clip.
          only: int [m], the clips that take part, rising; None = all.
          further: what else is embedded or kept; None = nothing.
        """
        further = further or FurtherClips()
        every = records.rows(split)
        self._clips = np.arange(len(every)) if only is None else np.asarray(only, np.int64)
        self._rows: list[dict[str, Any]] = list(every) if only is None else [every[int(clip)] for clip in only]
        self._encoder, self._records, self._split = encoder, records, split
        self._controls, self._seed, self._captions = further.controls, further.seed, further.captions
        self._sides = {PLAIN: side, **{name: name for name in further.sides}}
        self._heard = any("audio" in one.split("+") for one in self._sides.values())
        video = encoder.spec.towers.get("video", {})
        self._features = encoder.spec.features["video"] if video.get("family") == "features" else ""
        self._first: dict[bytes, np.ndarray] = {}  # equal input gets one embedding, as equal texts do
        self._first_views: dict[bytes, np.ndarray] = {}
        self._found: dict[str, dict[int, np.ndarray]] = {name: {} for name in (*self._sides, *further.controls)}
        self._changed: dict[str, set[int]] = {name: set() for name in further.controls}
        self._sounding: set[int] = set()
        self._views: dict[int, np.ndarray] | None = {} if further.keep_views else None
        self._tokens: dict[int, tuple[np.ndarray, np.ndarray]] | None = {} if further.keep_tokens else None
        self._first_tokens: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def embed(self, data: DataOptions, *, batch_size: int, progress: bool) -> None:
        """Embed all clips; every process must call it."""
        batches = self._batches(data, batch_size=batch_size)
        total = len(self._rows)
        for batch in track(in_step(batches), what="clips", total=total, batch_size=batch_size, progress=progress):
            plain, clip = self._inputs(batch), batch["clip_index"]
            row = np.where(clip >= 0, np.searchsorted(self._clips, clip), -1)
            for name, side in self._sides.items():
                if "text" in side.split("+"):
                    self._embed_with_captions(name, plain, side=side, row=row)
                else:
                    tokens = self._tokens is not None and name == PLAIN
                    self._take(name, self._embed(plain, side=side, row=row, tokens=tokens))
            for name in self._controls:
                changed = self._change(name, plain, clip=clip, other=batch)
                self._take(name, self._embed(changed, side=self._sides[PLAIN], row=row, unlike=plain))

    def found(self, name: str = PLAIN, *, what: Sequence[str] | None = None) -> np.ndarray:
        """Return float32 [m,E] in record order (of a side with text [n,E]).

        Args:
          name: of what was embedded.
          what: the name of each row, for messages; None = the ids of the clips.

        Raises:
          UserError: a clip that the input pipeline did not give.
        """
        found = self._found[name]
        names = [row["clip_id"] for row in self._rows] if what is None else what
        lost = [one for row, one in enumerate(names) if row not in found]
        if lost:
            raise UserError(
                f"the input pipeline gave {len(found)} of the {len(names)} clips of split {self._split!r} (first "
                f"missing: {lost[0]!r}); the records are damaged: prepare the data set again"
            )
        return np.stack([found[row] for row in range(len(names))])

    def views(self) -> np.ndarray:
        """Return the embeddings of the V views of each clip, float32 [m,V,E]; only if they are kept.

        Raises:
          UserError: as `found`.
        """
        self.found()  # every clip is there
        views = self._views
        assert views is not None
        return np.stack([views[row] for row in range(len(self._rows))]).astype(np.float32)

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the time tokens of each clip and which of them are real; only if they are kept.

        Those of several windows follow one another.

        Returns:
          float32 [m,T,D] and bool [m,T].

        Raises:
          UserError: as `found`.
        """
        self.found()
        tokens = self._tokens
        assert tokens is not None
        both = [tokens[row] for row in range(len(self._rows))]
        return np.stack([one for one, _ in both]), np.stack([mask for _, mask in both])

    @property
    def changed(self) -> dict[str, int]:
        """Control -> clips whose input it changed."""
        return {name: len(clips) for name, clips in self._changed.items()}

    @property
    def has_sound(self) -> np.ndarray | None:
        """Which clips have sound, bool [m]; None where no side hears it."""
        return np.isin(np.arange(len(self._rows)), sorted(self._sounding)) if self._heard else None

    def _batches(self, data: DataOptions, *, batch_size: int) -> Iterator[Arrays]:
        """Yield batches of the split; with swapped sounds `other_*` holds the sound that each clip gets."""
        from ...data.batches.pipeline import eval_batches

        common: dict[str, Any] = {
            "tokenizer": self._encoder.tokenizer,
            "split": self._split,
            "batch_size": batch_size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
            "records": self._records,
        }
        if self._features:
            data = data.replace(num_frames=0, features={self._features: data.input.num_frames})
        batches = eval_batches(data, **common, only=self._clips)
        if SWAPPED not in self._controls:
            return batches
        sounding = np.array([bool(row.get("has_audio")) for row in self._rows])
        swapped = self._clips[other_sounds(sounding, seed=self._seed)]
        others = eval_batches(data.replace(num_frames=0, features={}), **common, only=swapped)
        pairs = zip(batches, others, strict=True)
        return (batch | {f"other_{key}": other[key] for key in _SOUND} for batch, other in pairs)

    def _inputs(self, batch: Arrays) -> Arrays:
        """Return what the towers take of a batch."""
        key = f"features_{self._features}" if self._features else "video"
        found = {"video": batch[key]} if key in batch else {}  # none for a model of sound and text
        found |= {"video_mask": batch[f"{key}_mask"]} if f"{key}_mask" in batch else {}
        return found | ({name: batch[name] for name in _SOUND} if self._heard else {})

    def _change(self, name: str, plain: Arrays, *, clip: np.ndarray, other: Arrays) -> Arrays:
        """Return what the towers take of the clips [b] under a control of frames or sound."""
        if name == MUTED:
            return plain | mute({key: plain[key] for key in _SOUND})
        if name == SWAPPED:
            return plain | {key: other[f"other_{key}"] for key in _SOUND}
        assert CONTROLS[name].changes == "frames", name
        masks = plain.get("video_mask", [None] * len(clip))
        keys = [(self._seed, max(int(number), 0)) for number in clip]
        rows = zip(plain["video"], keys, masks, strict=True)
        return plain | {"video": np.stack([reorder_frames(v, name=name, key=key, real=mask) for v, key, mask in rows])}

    def _embed_with_captions(self, name: str, plain: Arrays, *, side: str, row: np.ndarray) -> None:
        assert self._captions is not None, side
        for texts in self._captions.of_clips(row):
            of_text = texts.pop("row")
            self._take(name, self._embed(plain | texts, side=side, row=of_text))

    def _embed(
        self, inputs: Arrays, *, side: str, row: np.ndarray, unlike: Arrays | None = None, tokens: bool = False
    ) -> Arrays:
        """Embed this process's rows of a batch; returns those of all processes. Each window has its own sound.

        Args:
          inputs: what the towers take.
          side: which tower, or the fused side.
          row: int [b], where the embeddings go; -1 = nowhere.
          unlike: the input without the control, to count what it changes.
          tokens: return the tower's time tokens, too.
        """
        taken = {key: inputs[key] for one in side.split("+") for key in _INPUTS[one] if key in inputs}
        rest: Arrays = {"row": row, "digest": _digests(side, taken)}
        if unlike is not None:
            before = _digests(side, {key: unlike[key] for key in taken})
            rest["changed"] = np.any(before != rest["digest"], axis=1)
        if "audio" in side.split("+"):
            rest["sounding"] = np.any(inputs["audio_mask"].reshape(len(row), -1), axis=1)
        views = _count_views(taken)
        got: Arrays = {}
        made, parts = [], []
        for number in range(views):
            seen = {key: _of_view(key, value, number=number, views=views) for key, value in taken.items()}
            got = self._encoder.embed_local({**seen, **rest}, side=side, **({"tokens": True} if tokens else {}))
            parts.append([got.pop(key) for key in ("tokens", "tokens_mask") if key in got])
            # A window without sound says nothing, whatever a tower makes of no samples.
            made.append(got["embedding"] * got["audio_mask"][:, None] if side == "audio" else got["embedding"])
        if tokens:
            got["tokens"], got["tokens_mask"] = (np.concatenate(one, axis=1) for one in zip(*parts, strict=True))
        return got | {"embedding": mean_of_views(made), "views": np.stack(made, axis=1)}

    def _take(self, name: str, got: Arrays) -> None:
        """Keep the embeddings of a batch under a name."""
        for place, row in enumerate(got["row"].tolist()):
            if row < 0:
                continue
            self._found[name][row] = self._first.setdefault(got["digest"][place].tobytes(), got["embedding"][place])
            if self._views is not None and name == PLAIN:
                self._views[row] = self._first_views.setdefault(got["digest"][place].tobytes(), got["views"][place])
            if self._tokens is not None and name == PLAIN:
                own = (got["tokens"][place], got["tokens_mask"][place])
                self._tokens[row] = self._first_tokens.setdefault(got["digest"][place].tobytes(), own)
            if name in self._changed and got["changed"][place]:
                self._changed[name].add(row)
            if name in self._sides and "text" not in name and "sounding" in got and got["sounding"][place]:
                self._sounding.add(row)


def _count_views(inputs: Arrays) -> int:
    """Return how many views (or windows) of each clip there are."""
    if "video" in inputs:
        return inputs["video"].shape[1] if inputs["video"].ndim == 6 else 1
    return inputs["audio"].shape[1] if inputs["audio"].ndim == 3 else 1


def _of_view(key: str, column: np.ndarray, *, number: int, views: int) -> np.ndarray:
    """Return what belongs to one of the views of each row: views come window by window, sound has one row for each."""
    if column.ndim == {"video": 6, "video_mask": 3}.get(key):
        return np.ascontiguousarray(column[:, number])
    if key in _SOUND and column.ndim == (3 if key == "audio" else 2):
        return np.ascontiguousarray(column[:, number * column.shape[1] // views])
    return column


def _digests(side: str, inputs: Arrays) -> np.ndarray:
    """Return int32 [b,4] of the rows [b] of all arrays, equal for equal rows of one side only."""
    columns = [inputs[key] for key in sorted(inputs)]
    texts = (side.encode() + b"".join(column[row].tobytes() for column in columns) for row in range(len(columns[0])))
    return np.stack([np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.int32) for text in texts])


def protocol_of_clips(data: DataOptions, *, split: str, records: "Records", side: str) -> dict[str, Any]:
    """Return what a report's protocol says about how clips became embeddings."""
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
        "clip_side": side,
    }
