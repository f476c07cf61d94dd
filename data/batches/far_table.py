"""Rows of a split whose index and clips.jsonl lie behind a URL: read shard by shard, as much as fits in some memory."""

import collections
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..index.columns import HEADER, KEYS, ROW, Summary
from ..index.parts import FRAME
from ..layout import INDEX
from ..ranges import read_ranges
from .table import Table, thinned

_MEMORY = 256 * 2**20  # bytes of each kind of piece that are kept
_SAMPLE_PART = 8 * 2**20  # bytes of one request for the sample of texts


class Pieces:
    """Parts of a file behind a URL, kept in memory up to a number of bytes, the least recently used going first."""

    def __init__(self, url: str, *, where: Callable[[int], tuple[int, int]], memory: int = _MEMORY):
        """Begin with none.

        Args:
          url: of the file.
          where: number of a piece -> its first byte and its size.
          memory: bytes that are kept.
        """
        self._url, self._where, self._memory = url, where, memory
        self._kept: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._bytes, self._lock, self._reading = 0, threading.Lock(), threading.Lock()

    def get(self, numbers: Sequence[int]) -> dict[int, bytes]:
        """Return pieces by their number; those that are not here are read, all at once. Any thread may call.

        Raises:
          UserError: one cannot be read.
        """
        found = self._here(numbers)
        if len(found) == len(set(numbers)):
            return found
        with self._reading:  # what another thread reads is waited for, not read twice
            found = self._here(numbers)
            missing = sorted(set(numbers) - found.keys())
            read = read_ranges(self._url, ranges=[self._where(number) for number in missing]) if missing else []
            with self._lock:
                for number, piece in zip(missing, read, strict=True):
                    found[number] = self._kept[number] = piece
                    self._bytes += len(piece)
                while self._bytes > self._memory and len(self._kept) > 1:
                    self._bytes -= len(self._kept.popitem(last=False)[1])
        return found

    def _here(self, numbers: Sequence[int]) -> dict[int, bytes]:
        found = {}
        with self._lock:
            for number in numbers:
                if (piece := self._kept.get(number)) is not None:
                    self._kept.move_to_end(number)
                    found[number] = piece
        return found


class FarTable(Table):
    """The rows of one split behind a URL."""

    def __init__(self, url: str, *, split: str, summary: Summary, ends: np.ndarray, sample_bytes: int):
        """Make a table; nothing is read yet.

        Args:
          url: of the prepared folder.
          split: name of the split.
          summary: of it.
          ends: int64 [S], records up to the end of each shard.
          sample_bytes: size of the file with the sample of texts; 0 = there is none.
        """
        nothing = (np.zeros(0, dtype) for dtype in (ROW, KEYS, FRAME))
        rows, keys, frames = nothing
        of = {"content": b"", "summary": summary, "path": Path(f"{url}/clips.jsonl")}
        super().__init__(rows, keys=keys, frames=frames, **of)
        self._url, self._ends, self._split, self._sample_bytes = url, ends, split, sample_bytes
        base = f"{url}/{INDEX}/{split}"
        self._row_pieces = Pieces(f"{base}.rows.npy", where=self._where_rows)
        self._key_pieces = Pieces(f"{base}.captions.npy", where=self._where_keys)
        self._frame_pieces = Pieces(f"{base}.frames.npy", where=self._where_frames)
        self._line_pieces = Pieces(f"{url}/clips.jsonl", where=self._where_lines)

    def fetch(self, shards: Sequence[int], *, keys: bool, lines: bool, frames: bool) -> None:
        """Read ahead what is known of the records of some shards.

        Args:
          shards: their numbers.
          keys: whether the keys of their captions are wanted.
          lines: whether their lines of clips.jsonl are.
          frames: whether it is wanted where their frames lie.
        """
        self._row_pieces.get(shards)
        if keys:
            self._key_pieces.get(shards)
        if lines:
            self._line_pieces.get(shards)
        if frames:
            self._frame_pieces.get(shards)

    def rows(self, records: np.ndarray) -> np.ndarray:
        """Return `ROW` [r] of records int64 [r]."""
        records = np.asarray(records, np.int64)
        shard = np.searchsorted(self._ends, records, side="right")
        out = np.empty(len(records), ROW)
        for number, piece in self._row_pieces.get(np.unique(shard).tolist()).items():
            here = shard == number
            out[here] = np.frombuffer(piece, ROW)[records[here] - self._begin(number)]
        return out

    def keys(self, records: np.ndarray, *, captions: np.ndarray) -> np.ndarray:
        """Return `KEYS` [r] of captions int [r], one of each of `records` int64 [r]."""
        records = np.asarray(records, np.int64)
        shard = np.searchsorted(self._ends, records, side="right")
        out = np.empty(len(records), KEYS)
        numbers = np.unique(shard).tolist()
        rows = self._row_pieces.get(numbers)
        for number, piece in self._key_pieces.get(numbers).items():
            here, own = shard == number, np.frombuffer(rows[number], ROW)
            place = own["first"][records[here] - self._begin(number)] - own["first"][0]
            out[here] = np.frombuffer(piece, KEYS)[place.astype(np.int64) + captions[here]]
        return out

    def frames(self, record: int) -> np.ndarray:
        """Return `FRAME` [n] of the stored frames of a record."""
        shard = int(np.searchsorted(self._ends, record, side="right"))
        rows = np.frombuffer(self._row_pieces.get([shard])[shard], ROW)
        row = rows[record - self._begin(shard)]
        first = int(row["frame"] - rows["frame"][0])
        return np.frombuffer(self._frame_pieces.get([shard])[shard], FRAME)[first : first + int(row["num_frames"])]

    def column(self, name: str) -> np.ndarray:
        """Return a field of `ROW` of all records, [n]: reads the whole index."""
        found = [np.frombuffer(self._row_pieces.get([s])[s], ROW)[name].copy() for s in range(len(self._ends))]
        return np.concatenate(found) if found else np.zeros(0, ROW[name])

    def sample(self, most: int) -> list[dict[str, Any]]:
        """Return the rows of an even sample of the records; see `Table`."""
        if not self._sample_bytes:
            return super().sample(most)
        ranges = [
            (begin, min(_SAMPLE_PART, self._sample_bytes - begin))
            for begin in range(0, self._sample_bytes, _SAMPLE_PART)
        ]
        parts = read_ranges(f"{self._url}/{INDEX}/{self._split}.sample.jsonl", ranges=ranges)
        return thinned(b"".join(parts), most=most)

    def _line(self, record: int) -> bytes:
        shard = int(np.searchsorted(self._ends, record, side="right"))
        rows = np.frombuffer(self._row_pieces.get([shard])[shard], ROW)
        row, begin = rows[record - self._begin(shard)], int(rows["line"][0])
        place = int(row["line"]) - begin
        return self._line_pieces.get([shard])[shard][place : place + int(row["size"])]

    def _begin(self, shard: int) -> int:
        return int(self._ends[shard - 1]) if shard else 0

    def _where_rows(self, shard: int) -> tuple[int, int]:
        begin = self._begin(shard)
        return HEADER + begin * ROW.itemsize, (int(self._ends[shard]) - begin) * ROW.itemsize

    def _where_keys(self, shard: int) -> tuple[int, int]:
        rows = np.frombuffer(self._row_pieces.get([shard])[shard], ROW)
        first, end = int(rows["first"][0]), int(rows["first"][-1]) + int(rows["captions"][-1])
        return HEADER + first * KEYS.itemsize, (end - first) * KEYS.itemsize

    def _where_frames(self, shard: int) -> tuple[int, int]:
        rows = np.frombuffer(self._row_pieces.get([shard])[shard], ROW)
        first, end = int(rows["frame"][0]), int(rows["frame"][-1]) + int(rows["num_frames"][-1])
        return HEADER + first * FRAME.itemsize, (end - first) * FRAME.itemsize

    def _where_lines(self, shard: int) -> tuple[int, int]:
        rows = np.frombuffer(self._row_pieces.get([shard])[shard], ROW)
        begin = int(rows["line"][0])
        return begin, int(rows["line"][-1]) + int(rows["size"][-1]) - begin
