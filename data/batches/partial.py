"""A record of which only what is drawn is read: frames, by their place in the shard, checked by their CRC-32.

Of a frame that is decoded after others (see `transforms.units`), these are read as well.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError
from ..index.parts import joined, range_of, without_headers
from ..options import SAMPLE_RATE
from ..ranges import read_parts

_GAP = 32 * 2**10  # bytes between two parts that are read along: a request takes longer than they do
_TRIES = 3  # where other bytes come than were written


class PartialRecord:
    """What was read of a record; the counterpart of `records.Record`.

    Attributes:
      url: of the shard.
      bad: whether other bytes came than were written.
    """

    def __init__(self, url: str, *, row: np.void, frames: np.ndarray, segment: int = 1):
        """Begin with nothing read.

        Args:
          url: of the shard.
          row: `ROW` of the record.
          frames: `FRAME` [n].
          segment: of the record's folder, see `Records`.
        """
        self.url, self.bad, self._row, self._frames, self._segment = url, False, row, frames, segment
        self._stored: dict[int, bytes] = {}
        self._sound: bytes | None = None

    @property
    def timestamps_s(self) -> np.ndarray:
        """When each frame begins, float32 [n], seconds from the clip's start."""
        return np.asarray(self._frames["time_s"], np.float32)

    def frames(self, indices: Sequence[int]) -> list[bytes]:
        """Return all that decoding each of some frames takes, which have been read."""
        return [b"".join(self._stored[j] for j in self._needed([i])) for i in indices]

    def sound(self, *, start_s: float, end_s: float, samples: int) -> np.ndarray:
        """Return at most `samples` of the sound between two times; see `records.Record`."""
        start = round(start_s * SAMPLE_RATE)
        end = min(start + samples, max(round(end_s * SAMPLE_RATE), start))
        return np.frombuffer((self._sound or b"")[2 * start : 2 * end], "<i2")

    def places(self, indices: Sequence[int], *, sound: bool) -> list[tuple[int, int]]:
        """Return (begin, size) in the stream of what is to be read: of some frames and, if wanted, of the sound."""
        frames, value = self._frames[self._needed(indices)], int(self._row["value"])
        wanted = [(value + int(frame["begin"]), int(frame["bytes"])) for frame in frames]
        if sound and self._row["sound_bytes"]:
            wanted.append((value + int(self._row["sound"]), int(self._row["sound_bytes"])))
        return joined(wanted, gap=_GAP)

    def take(self, found: dict[tuple[int, int], bytes], *, indices: Sequence[int], sound: bool) -> bool:
        """Keep what was read, by its place in the stream; return whether all of it is what was written."""
        value = int(self._row["value"])
        for i in self._needed(indices):
            frame = self._frames[i]
            self._stored[i] = _within(found, value + int(frame["begin"]), int(frame["bytes"]))
            if zlib.crc32(self._stored[i]) != frame["crc"]:
                return False
        if sound and self._row["sound_bytes"]:
            self._sound = _within(found, value + int(self._row["sound"]), int(self._row["sound_bytes"]))
            return zlib.crc32(self._sound) == self._row["sound_crc"]
        return True

    def _needed(self, indices: Sequence[int]) -> list[int]:
        """Return, in order, some frames and those ahead of them in their segments."""
        return sorted({j for i in indices for j in range(i - i % self._segment, i + 1)})


def read_partial(records: Sequence[PartialRecord], *, frames: Sequence[Sequence[int]], sound: bool) -> None:
    """Read parts of several records, all at once; a record of which other bytes come than were written is `bad`.

    Args:
      records: of which to read.
      frames: of each, the indices of the frames to read.
      sound: whether sound is read, too.

    Raises:
      UserError: a store cannot be reached.
    """
    good = [False] * len(records)
    for _ in range(_TRIES):
        todo = [i for i in range(len(records)) if not good[i]]
        places = [records[i].places(frames[i], sound=sound) for i in todo]
        parts = [(records[i].url, *range_of(b, size=n)) for i, own in zip(todo, places, strict=True) for b, n in own]
        came = iter(zip(parts, read_parts(parts), strict=True))
        for i, own in zip(todo, places, strict=True):
            found = {}
            for place in own:
                (_, begin, _), content = next(came)
                found[place] = without_headers(content, begin=begin)
            good[i] = records[i].take(found, indices=frames[i], sound=sound)
        if all(good):
            break
    for record, one in zip(records, good, strict=True):
        record.bad = not one


def damaged(record: PartialRecord) -> UserError:
    """Return the error for a record whose parts are not what was written."""
    return UserError(f"{record.url!r} gave other bytes than were written, in each of {_TRIES} attempts")


def _within(found: dict[tuple[int, int], bytes], begin: int, size: int) -> bytes:
    for (first, length), content in found.items():
        if first <= begin and begin + size <= first + length:
            return content[begin - first : begin - first + size]
    raise AssertionError("a part that was not asked for")
