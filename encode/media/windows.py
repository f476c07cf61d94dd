"""How a file is cut: moments that overlap, and chunks of several moments that are decoded at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ...data.media.clip import DecodedClip
from ...data.options import SAMPLE_RATE

_CHUNK_S = 60.0  # length that is decoded at a time, if moments are shorter
_SLACK_S = 1e-3  # stamps are rounded to a millisecond


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment of a file.

    Attributes:
      number: its place in the file, from 0.
      start_s: seconds from the first picture of the file.
      end_s: the same, exclusive.
    """

    number: int
    start_s: float
    end_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """How files are cut.

    Attributes:
      seconds: length of a moment.
      overlap: what neighbouring moments share, in seconds.
    """

    seconds: float
    overlap: float

    @property
    def hop(self) -> float:
        """Seconds from the start of a moment to that of the next."""
        return self.seconds - self.overlap

    @property
    def per_chunk(self) -> int:
        """How many moments begin in a chunk."""
        return max(1, int((_CHUNK_S - self.seconds) // self.hop) + 1)

    def chunk(self, number: int) -> tuple[float, float]:
        """Return start and end of a chunk in seconds from the clip's start; it ends with its last moment."""
        start = number * self.per_chunk * self.hop
        return start, start + (self.per_chunk - 1) * self.hop + self.seconds

    def chunks(self, length: float) -> int:
        """Return how many chunks a clip of `length` seconds has, at least 1."""
        moments = max(1, int(np.ceil((length - self.overlap - _SLACK_S) / self.hop)))
        return -(-moments // self.per_chunk)

    def moments(self, number: int, *, decoded_s: float, origin: float) -> list[Moment]:
        """Return the moments of a chunk.

        The last moment of a clip ends with it; one that would show nothing beyond its neighbour is left out.

        Args:
          number: of the chunk.
          decoded_s: how much of the chunk there is, in seconds.
          origin: start of the clip in its file, in seconds.
        """
        found = []
        for i in range(self.per_chunk):
            begin = i * self.hop
            if (number or i) and decoded_s - begin <= self.overlap + _SLACK_S:
                break
            first = number * self.per_chunk
            start = origin + first * self.hop + begin
            end = origin + first * self.hop + min(begin + self.seconds, decoded_s)
            found.append(Moment(number=first + i, start_s=round(start, 3), end_s=round(end, 3)))
        return found

    def cut(self, clip: DecodedClip) -> Iterator[DecodedClip]:
        """Yield the parts of a decoded chunk that are its moments, as many as there may be; see `moments`."""
        for i in range(self.per_chunk):
            begin = i * self.hop
            if begin >= clip.duration_s and i:
                return
            yield part_of(clip, start_s=begin, end_s=min(begin + self.seconds, clip.duration_s))


def part_of(clip: DecodedClip, *, start_s: float, end_s: float) -> DecodedClip:
    """Return a stretch of a decoded clip; times in seconds from the clip's start.

    The frame on display at `start_s` is the first one of the part, at time 0.
    """
    times = clip.timestamps_s
    low = max(0, int(np.searchsorted(times, start_s + _SLACK_S, side="right")) - 1)
    high = max(low + 1, int(np.searchsorted(times, end_s - _SLACK_S, side="left")))
    audio = None
    if clip.audio is not None:
        audio = clip.audio[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    return dataclasses.replace(
        clip,
        encoded=clip.encoded[low:high],
        timestamps_s=np.maximum(times[low:high] - np.float32(start_s), np.float32(0)),
        audio=audio if audio is not None and len(audio) else None,
        duration_s=end_s - start_s,
        fingerprint=None,
    )
