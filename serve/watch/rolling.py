"""The last seconds of a stream as windows, in bounded memory."""

import collections
import dataclasses
import math
import threading

import numpy as np

from ...data.media.clip import DecodedClip
from ...data.media.live import LiveFrame

_SLACK_S = 1e-3
_MOST_FPS = 120.0  # of a stream of which all frames are kept


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A stretch of a stream.

    Attributes:
      start_s: seconds since the stream was first opened.
      end_s: likewise.
      clip: its frames, with times from `start_s`.
      arrived_s: when its last frame came, by `time.monotonic`.
      connection: number of the connection that it belongs to.
      fresh_s: end of the window before, as far as the two join without a gap; `start_s` of one after a gap.
      joined: whether nothing is missing between the window before and this one.
    """

    start_s: float
    end_s: float
    clip: DecodedClip
    arrived_s: float
    connection: int
    fresh_s: float
    joined: bool


@dataclasses.dataclass(kw_only=True)
class Counts:
    """What became of a stream.

    Attributes:
      frames: that came, of those that are kept.
      dropped: frames that were in no window.
      windows: that were taken.
      skipped: windows that were overtaken by newer ones.
    """

    frames: int = 0
    dropped: int = 0
    windows: int = 0
    skipped: int = 0


@dataclasses.dataclass(eq=False)
class _Held:
    time_s: float
    frame: LiveFrame
    seen: bool = False


class Rolling:
    """Frames come in by one thread, windows go out to another one.

    A window is complete when a frame after its end has come. `live`: a reader that is too slow gets the newest window,
    older ones are skipped, and frames that were in none count as dropped; the writer never waits. Otherwise the writer
    waits for the reader. Either way at most the frames of a window and two hops are held.

    Attributes:
      counts: what became of the stream.
    """

    def __init__(self, *, seconds: float, hop: float, fps: float | None, live: bool):
        """Set up.

        Args:
          seconds: length of a window.
          hop: from the start of a window to that of the next.
          fps: frames per second that come; None = all.
          live: see the class.
        """
        self._seconds, self._hop, self._live = seconds, hop, live
        self._most = math.ceil((seconds + 2 * hop + 1) * (fps or _MOST_FPS)) + 2
        self._frames: collections.deque[_Held] = collections.deque()
        self._changed = threading.Condition()
        self._base = self._due = self._until = self._newest = 0.0
        self._connection, self._broken, self._closed = -1, True, False
        self.counts = Counts()

    def begin(self, base: float) -> None:
        """Start a connection whose first frame is at `base` seconds, or at the end of the one before if that is later.

        What is left of the one before is dropped.
        """
        with self._changed:
            base = max(base, self._newest)
            while self._frames:
                self._evict()
            self._base, self._due = base, base + self._seconds
            self._connection += 1
            self._broken = True

    def put(self, frame: LiveFrame) -> None:
        """Add the frame that came next."""
        with self._changed:
            time_s = self._base + frame.time_s
            while not self._live and not self._closed and time_s > self._due + self._hop + _SLACK_S:
                self._changed.wait(1.0)
            self._frames.append(_Held(time_s, frame))
            self._newest = time_s
            self.counts.frames += 1
            oldest = time_s - self._seconds - 2 * self._hop - 1.0
            while len(self._frames) > self._most or self._frames[0].time_s < oldest:
                self._evict()
            self._changed.notify_all()

    def close(self) -> None:
        """End the stream; windows that are complete can still be taken, and one of what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the stream at once."""
        with self._changed:
            self._frames.clear()
            self._closed = True
            self._changed.notify_all()

    def take(self) -> Window | None:
        """Return the next window, or in `live` the newest; wait for it. None at the end of the stream."""
        with self._changed:
            while True:
                if self._frames and self._frames[-1].time_s >= self._due - _SLACK_S:
                    return self._take(self._end_of_next())
                if self._closed:
                    left = any(not held.seen for held in self._frames)
                    return self._take(self._last_end()) if left else None
                self._changed.wait(0.2)

    def _end_of_next(self) -> float:
        if self._live:
            late = max(0, math.floor((self._frames[-1].time_s - self._due + _SLACK_S) / self._hop))
            self.counts.skipped += late
            self._due += late * self._hop
        return self._due

    def _last_end(self) -> float:
        """Return the end of what is left: the last frame lasts as long as the one before."""
        times = [held.time_s for held in self._frames]
        return times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.04)

    def _take(self, end_s: float) -> Window | None:
        start_s = max(end_s - self._seconds, self._base)
        inside = [held for held in self._frames if start_s - _SLACK_S <= held.time_s < end_s - _SLACK_S]
        before = [held for held in self._frames if held.time_s < start_s - _SLACK_S]
        if before and (not inside or inside[0].time_s > start_s + _SLACK_S):
            inside.insert(0, before[-1])  # still on display
        if not inside:  # the stream stood still for a whole window
            self._due = max(end_s, self._frames[-1].time_s) + self._hop
            self._broken = True
            return self._take(self._frames[-1].time_s + 2 * _SLACK_S)
        for held in inside:
            held.seen = True
        joined = not self._broken and start_s <= self._until + _SLACK_S
        fresh_s = min(self._until, end_s) if joined else start_s
        window = Window(
            start_s=start_s,
            end_s=end_s,
            clip=_clip([held.frame for held in inside], times=[held.time_s for held in inside], span=(start_s, end_s)),
            arrived_s=inside[-1].frame.arrived_s,
            connection=self._connection,
            fresh_s=fresh_s,
            joined=joined,
        )
        self._until, self._broken = end_s, False
        self._due = end_s + self._hop
        while len(self._frames) > 1 and self._frames[1].time_s <= self._due - self._seconds:
            self._evict()
        self.counts.windows += 1
        self._changed.notify_all()
        return window

    def _evict(self) -> None:
        self.counts.dropped += not self._frames.popleft().seen


def _clip(frames: list[LiveFrame], *, times: list[float], span: tuple[float, float]) -> DecodedClip:
    start_s, end_s = span
    return DecodedClip(
        encoded=[frame.jpeg for frame in frames],
        timestamps_s=np.maximum(np.array(times) - start_s, 0).astype(np.float32),
        height=frames[-1].height,
        width=frames[-1].width,
        audio=None,
        duration_s=end_s - start_s,
    )
