"""Rows to encoded clips: each row's random choices are drawn, then its record is read and the drawn parts taken out."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from ...base.errors import UserError, unknown
from ..batches import draws
from ..options import SAMPLE_RATE, DataOptions
from .clip_graph import ClipGraph
from .partial import PartialRecord, damaged, read_partial
from .records import Record, damaged_record
from .sampling import crop_within
from .source import Source, read_in_parts

_SOUND = 3  # the place of the sound, as texts.py numbers what it draws for


class Wanted(NamedTuple):
    """Rows of a batch to read: `source` int32 [r], `record` int64 [r], `epoch` int64 [r]."""

    source: np.ndarray
    record: np.ndarray
    epoch: np.ndarray


class Read(NamedTuple):
    """What was read of r rows. Times are seconds from the clip's start; [r,…] is [r,V,…] with V > 1 windows.

    Attributes:
      encoded: object [r,V*T], the drawn frames as `Record.frames` returns them; b"" where `ok` is False.
      height: int32 [r], pixels of these frames.
      width: int32 [r].
      uniforms: float32 [r,D], numbers in [0, 1) for the transforms.
      window: float32 [r,2], from the start of the first window to the end of the last: what transcript and features
        are taken from.
      window_s: float32 [r,…,2], start and end of each window.
      frame_times_s: float32 [r,…,T], time stamps of the drawn frames.
      video_mask: bool [r,…,T], with `mask_frames` True where a frame is no padding; of views, see `ClipGraph.shape`.
      ok: bool [r], False where the record is damaged.
      audio: int16 [r,…,S], sound from within the window, then zeros.
      audio_mask: bool [r,…], whether there is sound in the window.
      audio_samples: int32 [r,…], samples of the record's sound in `audio`; what follows them is padding.
      audio_start_s: float32 [r,…], time of the first of them.
    """

    encoded: np.ndarray
    height: np.ndarray
    width: np.ndarray
    uniforms: np.ndarray
    window: np.ndarray
    window_s: np.ndarray
    frame_times_s: np.ndarray
    video_mask: np.ndarray
    ok: np.ndarray
    audio: np.ndarray
    audio_mask: np.ndarray
    audio_samples: np.ndarray
    audio_start_s: np.ndarray


class Reader:
    """Reads rows; safe to call from several threads.

    Attributes:
      bad: what is wrong with each damaged record met so far, by (source, record).
    """

    def __init__(
        self, sources: Sequence[Source], *, data: DataOptions, graph: ClipGraph, seed: int, all_shards: bool = True
    ):
        """Check that the frames fit the transforms; fetch all shards of sources that lie behind a URL.

        Args:
          sources: what is read.
          data: `config.data`.
          graph: how clips become arrays.
          seed: of the run; -1 = evaluation, where nothing is random.
          all_shards: whether they are fetched now: a random order needs them all within a few batches.

        Raises:
          UserError: frames that are too small, features that a source does not have, or of different widths; a shard
            that cannot be fetched.
        """
        self.bad: dict[tuple[int, int], str] = {}
        self._sources, self._data, self._graph, self._seed = sources, data, graph, seed
        self._widths = {name: _feature_width(name, sources) for name in data.feed.features}
        self._lock = threading.Lock()
        for source in sources if graph.num_frames else ():
            for (height, width), row in sorted(source.rows.summary.sizes.items()):
                clip_id = source.rows[row]["clip_id"]
                if not height:
                    raise UserError(
                        f"clip {clip_id!r} of {source.name!r} has precomputed features but no frames; "
                        "set config.data.num_frames=0 for batches without video, or leave the source out"
                    )
                graph.transform.check(height=height, width=width, example=f"clip {clip_id!r}")
        self._in_parts = [read_in_parts(source, data=data, ahead=not all_shards) for source in sources]
        for source, parts in zip(sources, self._in_parts, strict=True):
            if all_shards and not parts:
                source.records.fetch(source.split)

    def fetch(self, wanted: Wanted) -> "list[PartialRecord | None]":
        """Fetch the drawn frames of rows whose source is read in parts, all at once; None for a row of another source.

        A row of which other bytes come than were written has no frames: `read` counts it as damaged.
        """
        found: list[PartialRecord | None] = [None] * len(wanted.record)
        if not any(self._in_parts):
            return found
        frames = []
        for i in range(len(found)):
            source, record, epoch = (int(part[i]) for part in wanted)
            whose = self._sources[source]
            if not self._in_parts[source]:
                continue
            row = whose.rows.rows(np.array([record]))[0]
            url = whose.records.shard_url(whose.split, index=record)
            found[i] = part = PartialRecord(
                url, row=row, frames=whose.rows.frames(record), segment=whose.records.segment
            )
            windows = self._graph.draw_windows(
                times=part.timestamps_s,
                duration_s=whose.rows[record]["duration_s"],
                uniforms=self._uniforms(source, record, epoch),
            )
            frames.append(np.concatenate([window.frames for window in windows]).tolist())
        parts = [part for part in found if part is not None]
        read_partial(parts, frames=frames, sound=bool(self._graph.audio_samples))
        return found

    def read(
        self, wanted: Wanted, *, fetched: "Sequence[PartialRecord | None] | None" = None
    ) -> tuple[Read, dict[str, np.ndarray]]:
        """Draw and read rows; of those whose source is read in parts, take what `fetch` has fetched.

        Returns:
          The rows, and their precomputed features: `features_NAME` float32 [r,n,D] and `features_NAME_mask` bool [r,n].
        """
        r, graph = len(wanted.record), self._graph
        rows = (r, graph.windows) if graph.windows > 1 else (r,)
        out = Read(
            encoded=np.full((r, graph.num_frames * graph.windows), b"", object),
            height=np.ones(r, np.int32),
            width=np.ones(r, np.int32),
            uniforms=np.zeros((r, graph.draws), np.float32),
            window=np.zeros((r, 2), np.float32),
            window_s=np.zeros((*rows, 2), np.float32),
            frame_times_s=np.zeros((*rows, graph.num_frames), np.float32),
            video_mask=np.zeros((r, *graph.shape[:-3]), bool),
            ok=np.zeros(r, bool),
            audio=np.zeros((*rows, graph.audio_samples), np.int16),
            audio_mask=np.zeros(rows, bool),
            audio_samples=np.zeros(rows, np.int32),
            audio_start_s=np.zeros(rows, np.float32),
        )
        features = self._no_features(r)
        if fetched is None:
            fetched = self.fetch(wanted)
        for i in range(r):
            source, record, epoch = (int(part[i]) for part in wanted)
            try:
                self._row(out, features, i, source=source, record=record, epoch=epoch, part=fetched[i])
            except (UserError, DecodeError, IndexError, ValueError) as error:
                self.reject(source, record, reason=error)
        return out, features

    def width(self, name: str) -> int:
        """Return D of a modality of `config.data.features`."""
        return self._widths[name]

    def labels(self, source: np.ndarray, *, record: np.ndarray, classes: Sequence[np.ndarray]) -> np.ndarray:
        """Return int32 [r], the class of each record's first label, -1 = none.

        Args:
          source: int32 [r].
          record: int64 [r].
          classes: by source, int32 [c], the class of each label of its index.
        """
        found = np.full(len(record), -1, np.int32)
        for i in np.unique(source):
            here = np.flatnonzero(source == i)
            label = self._sources[i].rows.rows(record[here])["label"]
            found[here[label >= 0]] = classes[i][label[label >= 0]]
        return found

    def reject(self, source: int, record: int, *, reason: Exception) -> None:
        """Count a damaged record.

        Raises:
          UserError: more than `max_bad_fraction` of the source's records are damaged; names the newest one.
        """
        whose = self._sources[source]
        error = reason if isinstance(reason, UserError) else damaged_record(whose.split, record, str(reason))
        with self._lock:
            self.bad[source, record] = str(error)
            count = sum(s == source for s, _ in self.bad)
        limit = self._data.feed.max_bad_fraction
        if count > limit * len(whose.rows):
            raise UserError(
                f"{error} [{count} of the {len(whose.rows)} clips of {whose.name!r} are damaged, more than "
                f"config.data.max_bad_fraction={limit:g} allows]"
            ) from reason

    def _row(
        self,
        out: Read,
        features: dict[str, np.ndarray],
        i: int,
        *,
        source: int,
        record: int,
        epoch: int,
        part: "PartialRecord | None",
    ) -> None:
        """Fill row i."""
        whose, graph = self._sources[source], self._graph
        row = whose.rows[record]
        if part is not None and part.bad:
            raise damaged(part)
        parsed = part or Record(whose.records.read(whose.split, [record])[0])
        out.uniforms[i] = self._uniforms(source, record, epoch)
        duration = row["duration_s"]
        windows = graph.windows_of(duration, uniform=float(out.uniforms[i, graph.num_frames]))
        if graph.num_frames:
            times = parsed.timestamps_s
            if len(times) != row["num_frames"]:
                raise ValueError(f"{len(times)} frames instead of {row['num_frames']}")
            parts = graph.draw_windows(times=times, duration_s=duration, uniforms=out.uniforms[i])
            windows = [(part.start_s, part.end_s) for part in parts]
            frames = np.concatenate([part.frames for part in parts])
            out.encoded[i] = parsed.frames(frames.tolist())
            out.frame_times_s[i] = times[frames].reshape(out.frame_times_s.shape[1:])
            out.height[i], out.width[i] = row["height"], row["width"]
            if graph.mask_frames:
                out.video_mask[i] = graph.real_frames(frames)
        out.window_s[i] = np.reshape(windows, out.window_s.shape[1:])
        out.window[i] = share = (windows[0][0], windows[-1][1])
        if graph.audio_samples:
            self._fill_sound(out, i, parsed, windows=windows, place=self._sound_place(source, record, epoch))
        for name in self._data.feed.features:
            assert isinstance(parsed, Record)  # features are not read in parts
            stored = _real(parsed.features(name), name, row)
            _fill_features(features, name, i, stored=stored, share=(*share, duration))
        out.ok[i] = True

    def _uniforms(self, source: int, record: int, epoch: int) -> np.ndarray:
        count = self._graph.draws
        if self._seed < 0:
            return np.zeros(count, np.float32)
        return draws.uniforms(seed=self._seed, epoch=epoch, source=source, record=record, count=count)

    def _sound_place(self, source: int, record: int, epoch: int) -> float:
        """Return where in the window the sound lies, as a share of the room: drawn in training, else the middle."""
        if self._seed < 0:
            return 0.5
        key = {"source": np.array([source]), "record": np.array([record]), "epoch": np.array([epoch])}
        return float(draws.share_of(draws.numbers(seed=self._seed, **key, what=_SOUND))[0])

    def _fill_sound(
        self, out: Read, i: int, parsed: "Record | PartialRecord", *, windows: list[tuple[float, float]], place: float
    ) -> None:
        """Put the sound of each window into row i: all of a window that is no longer than S, else a part of it."""
        graph = self._graph
        rows = [out.audio, out.audio_mask, out.audio_samples, out.audio_start_s]
        audio, mask, samples, starts = (column[i : i + 1].reshape(graph.windows, -1) for column in rows)
        own = out.uniforms[i, graph.draws - graph.sound.draws :]
        for v, window in enumerate(windows):
            start, end = crop_within(window, seconds=graph.audio_samples / SAMPLE_RATE, place=place)
            sound = parsed.sound(start_s=start, end_s=end, samples=graph.audio_samples)
            audio[v, : len(sound)] = graph.sound(sound, uniforms=own)
            mask[v], samples[v], starts[v] = len(sound) > 0, len(sound), start

    def _no_features(self, r: int) -> dict[str, np.ndarray]:
        empty: dict[str, np.ndarray] = {}
        for name, n in self._data.feed.features.items():
            empty[f"features_{name}"] = np.zeros((r, n, self._widths[name]), np.float32)
            empty[f"features_{name}_mask"] = np.zeros((r, n), bool)
        return empty


def _real(stored: np.ndarray | None, name: str, row: dict[str, Any]) -> np.ndarray | None:
    """Return features as numbers: those that are stored in 8 bits stand for `byte * scale + offset`."""
    pair = row.get("features_scale", {}).get(name)  # the first version of clips.jsonl has none
    if stored is None or pair is None:
        return stored
    scale, offset = (np.float32(value) for value in pair)
    return stored * scale + offset


def _fill_features(
    features: dict[str, np.ndarray], name: str, i: int, *, stored: np.ndarray | None, share: tuple[float, float, float]
) -> None:
    """Put the features within the window into row i, evenly chosen where they are too many."""
    if stored is None:
        return
    start, end, duration = share
    n = len(stored)
    low = min(int(start / duration * n), n - 1) if duration > 0 else 0
    high = max(low + 1, int(np.ceil(end / duration * n))) if duration > 0 else n
    part = stored[low:high]
    room = features[f"features_{name}"].shape[1]
    if len(part) > room:
        part = part[((np.arange(room) + 0.5) * len(part) / room).astype(int)]
    features[f"features_{name}"][i, : len(part)] = part
    features[f"features_{name}_mask"][i, : len(part)] = True


def _feature_width(name: str, sources: Sequence[Source]) -> int:
    """Return D of a modality, the same in all clips that have it."""
    widths: dict[int, Any] = {}
    for source in sources:
        for width, row in source.rows.summary.features.get(name, {}).items():
            widths.setdefault(width, (source, row))
    if not widths:
        known = {known for source in sources for known in source.rows.summary.features}
        fields = "config.data.features, config.model.video.features; `twinreel features` computes vectors of frames"
        raise unknown(f"features of the records ({fields}):", name, known)
    if len(widths) > 1:
        (a, first), (b, second) = [(width, s.rows[row]["clip_id"]) for width, (s, row) in widths.items()][:2]
        raise UserError(
            f"features {name!r} have {a} columns in clip {first!r} and {b} in clip {second!r}; "
            "prepare clips of one width, or leave the modality out of config.data.features"
        )
    return next(iter(widths))
