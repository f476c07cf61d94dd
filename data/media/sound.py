"""The sound of a clip: from packets to 16 kHz mono int16 samples on the time line of the pictures (PyAV)."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.filter import Graph
from av.stream import Disposition

from ..options import SAMPLE_RATE
from .mix import Mixer

_TOLERANCE_S = 0.1  # deviations of stamps: below it rounding or drift, above it a gap (or an overlap)
_JUMP_S = 1.0  # a step back of more than this starts a new time line, as it does for the pictures
_SILENT = 8  # of 32768 (-72 dBFS): a track without any louder sample is silent, give or take the noise of rounding
_ASIDE = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.karaoke
_BATCH_S = 1.0  # sound is resampled in pieces of this length: codec frames are too short for one call each


@dataclasses.dataclass
class _Run:
    """A stretch of sound without a gap and in one format."""

    source: tuple[str, str, int]  # sample format, channel layout, rate in Hz
    mixer: Mixer | None  # None = one channel
    start: float | None  # file time of its first sample in seconds
    line: int  # number of the time line that `start` belongs to
    newest: float | None = None  # the last time stamp that advanced
    samples_in: int = 0  # at the source's rate
    chunks: list[np.ndarray] = dataclasses.field(default_factory=list)  # int16 [n], 16 kHz

    def takes(self, source: tuple[str, str, int], time: float | None, line: int, count: int) -> bool:
        """Return whether a frame continues this run; if so, count its samples."""
        if source != self.source or line != self.line:
            return False
        stuck = time is None or (self.newest is not None and time <= self.newest)  # such a stamp tells no position
        if time is not None and not stuck and self.start is not None:
            expected = self.start + self.samples_in / self.source[2]
            if abs(expected - time) > _TOLERANCE_S:
                return False
        self.newest = self.newest if stuck else time
        self.samples_in += count
        return True


def sound_stream(container: Any) -> tuple[Any, str]:
    """Return the main sound track, None if there is none to decode, and a note on the choice.

    Commentaries, audio descriptions and the like are chosen last. Among the others the default flag decides, then
    libavformat's choice (by channels and bit rate), then the order in the file.
    """
    tracks = list(container.streams.audio)
    good = [track for track in tracks if track.codec_context is not None]
    if not good:
        return None, "no decoder for the sound" if tracks else ""
    best = container.streams.best("audio")
    good.sort(
        key=lambda track: (
            bool(track.disposition & _ASIDE),
            not track.disposition & Disposition.default,
            best is None or track.index != best.index,
        )
    )
    return good[0], "several sound tracks, the main one taken" if len(tracks) > 1 else ""


def is_silent(samples: np.ndarray) -> bool:
    """Return whether sound, int16 [S], is silence."""
    return not len(samples) or (int(samples.max()) <= _SILENT and int(samples.min()) >= -_SILENT)


class Sound:
    """Collects one sound track while a file is read, and cuts the clip's window out of it.

    Attributes:
      stream: the PyAV stream whose packets are to be pushed.
      rate: Hz of the samples that `samples` returns.
      broken: number of packets that did not decode.
      since: file time of the first sample seen, in seconds; infinity where there is none yet.
      until: file time after the last sample seen, in seconds; minus infinity where there is none yet.
      covered: samples of the window that the track has, once `samples` was called.
      begins: the first of them, in seconds from the window's start; infinity where there is none.
      notes: how the channels were mixed, where that is unusual.

    Time is file time in seconds, as `InOrder` counts it.
    """

    def __init__(self, stream: Any, *, shifts: Sequence[float] = (0.0,), rate: int = SAMPLE_RATE):
        """Make the collector.

        Args:
          stream: the PyAV stream whose packets are to be pushed.
          shifts: what is added to the stamps of each time line of the pictures (`InOrder.shifts`), growing as they are
            read: where stamps start again, the sound's go with the pictures'.
          rate: Hz of the samples that `samples` returns.
        """
        self.stream, self.rate = stream, rate
        self._shifts = shifts
        self._line = 0
        self._newest: float | None = None  # stamp of the time line, not shifted
        self.broken = 0
        self.since, self.until = float("inf"), float("-inf")
        self.covered, self.begins = 0, float("inf")
        self.notes: set[str] = set()
        self._wanted = (float("-inf"), float("inf"))
        self._runs: list[_Run] = []
        self._fifo = AudioFifo()
        self._graph: Graph | None = None

    def keep_between(self, start: float, end: float) -> None:
        """Drop frames outside of `[start, end)` from now on (file time in seconds), which bounds the memory."""
        self._wanted = (start, end)

    def push(self, packet: Any) -> None:
        """Decode a packet of the track; a broken one is skipped and counted."""
        try:
            frames = packet.decode()
        except EndOfFile:
            return
        except MemoryError:  # which is an FFmpegError too
            raise
        except FFmpegError:
            self.broken += 1
            return
        for frame in frames:
            self._push_frame(frame)

    def samples(self, *, start: float, duration_s: float) -> np.ndarray | None:
        """Return the window's samples.

        Args:
          start: file time of the window's start in seconds.
          duration_s: length of the window in seconds.

        Returns:
          int16 [S], S = duration_s * rate, rounded, with silence where the track has no sound; None if it has none in
          the whole window.
        """
        self._end_run()
        out = np.zeros(round(duration_s * self.rate), dtype=np.int16)
        position = 0
        for run in self._runs:
            if run.start is not None and run.line < len(self._shifts):  # else it follows what came before it
                position = round((run.start + self._shifts[run.line] - start) * self.rate)
            for chunk in run.chunks:
                first, last = max(position, 0), min(position + len(chunk), len(out))
                if first < last:
                    out[first:last] = chunk[first - position : last - position]
                    self.covered += last - first
                    self.notes |= set() if run.mixer is None else run.mixer.notes
                    self.begins = min(self.begins, first / self.rate)
                position += len(chunk)
        return out if self.covered else None

    def _push_frame(self, frame: av.AudioFrame) -> None:
        rate, count = frame.sample_rate, frame.samples
        time = None if frame.pts is None or frame.time_base is None else seconds(frame.pts, frame.time_base)
        if time is not None:
            if self._newest is not None and time < self._newest - _JUMP_S:
                self._line += 1
            self._newest = time
            shifted = time + self._shift(self._line)
            self.since, self.until = min(self.since, shifted), shifted + count / rate
            # Sound of a new time line may come before its first picture: its place is not known yet, so it is kept.
            if self._line < len(self._shifts) and not self._wanted[0] - count / rate <= shifted <= self._wanted[1]:
                return
        source = (frame.format.name, frame.layout.name, rate)
        if not self._runs or not self._runs[-1].takes(source, time, self._line, count):
            self._end_run()
            mixer = Mixer(source[1], channels=frame.layout.nb_channels) if source[1] != "mono" else None
            self._runs.append(_Run(source, mixer, time, self._line, time, count))
        frame.pts = None  # the run has the time; the buffer would insist on stamps that are exact to the sample
        self._fifo.write(frame)
        if self._fifo.samples >= _BATCH_S * rate:
            self._resample(self._fifo.read())

    def _shift(self, line: int) -> float:
        return self._shifts[min(line, len(self._shifts) - 1)]

    def _end_run(self) -> None:
        """Flush the buffers into the last run."""
        if self._runs:
            if (rest := self._fifo.read()) is not None:
                self._resample(rest)
            self._resample(None)
            self._fifo, self._graph = AudioFifo(), None

    def _resample(self, frame: av.AudioFrame | None) -> None:
        """Resample a piece of the last run; None = the run ends."""
        mixer = self._runs[-1].mixer
        if frame is not None and mixer is not None:
            frame = mixer(frame)
        if self._graph is None:
            if frame is None:
                return
            self._graph = _resampler(frame, rate=self.rate)
        self._graph.push(frame)
        with contextlib.suppress(BlockingIOError, EndOfFile):  # it wants more, or has given all
            while True:
                self._runs[-1].chunks.append(self._graph.pull().to_ndarray().reshape(-1))


def _resampler(first: av.AudioFrame, *, rate: int) -> Graph:
    """Make a filter graph from sound like that of `first` to int16 mono at `rate` Hz.

    PyAV's AudioResampler makes the same graph, but with a thread per core; starting and joining them for every clip
    would take longer than the resampling.
    """
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "abuffer",
        sample_rate=str(first.sample_rate),
        sample_fmt=first.format.name,
        channel_layout=first.layout.name,
        time_base=f"1/{first.sample_rate}",
    )
    target = graph.add("aformat", sample_rates=str(rate), sample_fmts="s16", channel_layouts="mono")
    sink = graph.add("abuffersink")
    source.link_to(target)
    target.link_to(sink)
    graph.configure()
    return graph


def seconds(stamp: int, time_base: Any) -> float:
    """Return a stamp in seconds. (Not `float(stamp * time_base)`: arithmetic of fractions is slow, per frame.)"""
    return stamp * time_base.numerator / time_base.denominator
