"""The sound of a clip: the track's packets in, 16 kHz mono int16 samples on the pictures' time line out (PyAV)."""

import contextlib
import dataclasses
from typing import Any

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.filter import Graph

from ..options import SAMPLE_RATE

_TOLERANCE_S = 0.1  # stamps that stray by less are rounding or drift, by more a gap (or an overlap)
_BATCH_S = 1.0  # sound is resampled in pieces of this length: codec frames are so short that the calls would dominate


@dataclasses.dataclass
class _Run:
    """Sound without a gap and of one format."""

    source: tuple[str, str, int]  # sample format, channel layout, rate in Hz
    start: float | None  # file time of its first sample in seconds
    newest: float | None = None  # the last time stamp that advanced
    samples_in: int = 0  # at the source's rate
    chunks: list[np.ndarray] = dataclasses.field(default_factory=list)  # int16 [n], 16 kHz

    def takes(self, source: tuple[str, str, int], time: float | None, count: int) -> bool:
        """Whether a frame of that format, time stamp and number of samples is the next piece; if so, count it in."""
        if source != self.source:
            return False
        stuck = time is None or (self.newest is not None and time <= self.newest)  # says nothing about the place
        if time is not None and not stuck and self.start is not None:
            expected = self.start + self.samples_in / self.source[2]
            if abs(expected - time) > _TOLERANCE_S:
                return False
        self.newest = self.newest if stuck else time
        self.samples_in += count
        return True


class Sound:
    """Collects one sound track while a file is read, and cuts the clip's window out of it.

    Attributes:
      stream: the PyAV stream whose packets are to be pushed.
      broken: number of packets that did not decode.
      until: file time of the end of what was collected, in seconds.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.broken = 0
        self.until = float("-inf")
        self._wanted = (float("-inf"), float("inf"))
        self._runs: list[_Run] = []
        self._fifo = AudioFifo()
        self._graph: Graph | None = None

    def keep_between(self, start: float, end: float) -> None:
        """Leave out frames that lie outside `[start, end)` from now on (file time in seconds): bounds the memory."""
        self._wanted = (start, end)

    def push(self, packet: Any) -> None:
        """Decode a packet of the track; a broken one is left out and counted."""
        try:
            frames = packet.decode()
        except EndOfFile:
            return
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
          int16 [S], S = duration_s * 16000 rounded, with silence where the track has no sound; None if it has none in
          the whole window.
        """
        self._end_run()
        out = np.zeros(round(duration_s * SAMPLE_RATE), dtype=np.int16)
        position, heard = 0, False
        for run in self._runs:
            if run.start is not None:
                position = round((run.start - start) * SAMPLE_RATE)
            for chunk in run.chunks:
                first, last = max(position, 0), min(position + len(chunk), len(out))
                if first < last:
                    out[first:last] = chunk[first - position : last - position]
                    heard = True
                position += len(chunk)
        return out if heard else None

    def _push_frame(self, frame: av.AudioFrame) -> None:
        rate, count = frame.sample_rate, frame.samples
        time = None if frame.pts is None or frame.time_base is None else seconds(frame.pts, frame.time_base)
        if time is not None:
            self.until = time + count / rate
            if self.until < self._wanted[0] or time > self._wanted[1]:
                return
        source = (frame.format.name, frame.layout.name, rate)
        if not self._runs or not self._runs[-1].takes(source, time, count):
            self._end_run()
            self._runs.append(_Run(source, time, time, count))
        frame.pts = None  # the run has the time; the buffer would insist on stamps that are exact to the sample
        self._fifo.write(frame)
        if self._fifo.samples >= _BATCH_S * rate:
            self._resample(self._fifo.read())

    def _end_run(self) -> None:
        """Take what is still in the buffers into the last run."""
        if self._runs:
            if (rest := self._fifo.read()) is not None:
                self._resample(rest)
            self._resample(None)
            self._fifo, self._graph = AudioFifo(), None

    def _resample(self, frame: av.AudioFrame | None) -> None:
        """Take a piece of the last run through the resampler; None = the run ends."""
        if self._graph is None:
            if frame is None:
                return
            self._graph = _resampler(frame)
        self._graph.push(frame)
        with contextlib.suppress(BlockingIOError, EndOfFile):  # it wants more, or has given all
            while True:
                self._runs[-1].chunks.append(self._graph.pull().to_ndarray().reshape(-1))


def _resampler(first: av.AudioFrame) -> Graph:
    """Make a filter graph from sound like that of `first` to int16 mono at 16 kHz.

    PyAV's AudioResampler makes the same graph, but with a thread per core: to start and join these for every clip takes
    longer than to resample it.
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
    target = graph.add("aformat", sample_rates=str(SAMPLE_RATE), sample_fmts="s16", channel_layouts="mono")
    sink = graph.add("abuffersink")
    source.link_to(target)
    target.link_to(sink)
    graph.configure()
    return graph


def seconds(stamp: int, time_base: Any) -> float:
    """Return a stamp in seconds. (Not `float(stamp * time_base)`: arithmetic of fractions is slow, per frame.)"""
    return stamp * time_base.numerator / time_base.denominator
