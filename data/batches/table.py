"""The rows of a split: columns of the index by record, and lines of clips.jsonl, each parsed when it is asked for.

On a local disk the index and clips.jsonl are memory-mapped. A folder without an index is gone through once.
"""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ...base.errors import UserError
from ..index.columns import Gathered, Summary, mapped, read_summary
from ..layout import INDEX

_FIRST = b'{"split": "'  # how `prepare` begins a line: the split is known without parsing the rest


class Table(Sequence[dict[str, Any]]):
    """The rows of one split, in record order. Any thread may ask.

    Attributes:
      summary: what is known of the split as a whole.
    """

    def __init__(
        self,
        rows: np.ndarray,
        *,
        keys: np.ndarray,
        frames: np.ndarray,
        content: "mmap.mmap | bytes",
        summary: Summary,
        path: Path,
        sample: Path | None = None,
    ):
        """Make a table.

        Args:
          rows: `ROW` [n], an array or a memory-mapped one.
          keys: `KEYS` [m], likewise.
          frames: `FRAME` [f], likewise.
          content: of clips.jsonl.
          summary: of the split.
          path: of clips.jsonl, for messages.
          sample: the file with the texts of an even sample of the records; None = all of them are looked up.
        """
        self._rows, self._keys, self._frames = rows, keys, frames
        self._content, self._path, self._sample = content, path, sample
        self.summary = summary

    def __len__(self) -> int:
        return self.summary.rows

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= record < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return parsed(self._line(record), path=self._path)

    def rows(self, records: np.ndarray) -> np.ndarray:
        """Return `ROW` [r] of records int64 [r]."""
        return self._rows[records]

    def keys(self, records: np.ndarray, *, captions: np.ndarray) -> np.ndarray:
        """Return `KEYS` [r] of captions int [r], one of each of `records` int64 [r]."""
        return self._keys[self._rows["first"][records].astype(np.int64) + captions]

    def frames(self, record: int) -> np.ndarray:
        """Return `FRAME` [n] of the stored frames of a record."""
        row = self._rows[record]
        return self._frames[int(row["frame"]) : int(row["frame"]) + int(row["num_frames"])]

    def column(self, name: str) -> np.ndarray:
        """Return a field of `ROW` of all records, [n]: reads the whole index."""
        return np.asarray(self._rows[name])

    def sample(self, most: int) -> list[dict[str, Any]]:
        """Return the rows of an even sample of the records, with at least the fields that hold texts.

        Args:
          most: how many, at most.
        """
        if self._sample is not None:  # instead of many lines all over clips.jsonl
            return thinned(self._sample.read_bytes(), most=most)
        return [self[i] for i in range(0, len(self), max(1, -(-len(self) // most)))]

    def _line(self, record: int) -> bytes:
        begin, size = int(self._rows["line"][record]), int(self._rows["size"][record])
        return self._content[begin : begin + size]


def read_tables(folder: Path) -> dict[str, Table]:
    """Open the rows of a local folder, by split: with its index, or by going through clips.jsonl.

    Raises:
      UserError: clips.jsonl has a line that is no row.
    """
    path = folder / "clips.jsonl"
    size = path.stat().st_size
    content: mmap.mmap | bytes = b""
    with path.open("rb") as file:
        if size:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    summaries = read_summaries(sorted((folder / INDEX).glob("*.json")), clips_bytes=size)
    if summaries is None:
        return _gone_through(content, path=path)
    tables = {}
    for split, summary in summaries.items():
        names = ("rows", "captions", "frames")
        rows, keys, frames = (mapped(folder / INDEX / f"{split}.{name}.npy") for name in names)
        sample = folder / INDEX / f"{split}.sample.jsonl" if summary.sampled else None
        of = {"content": content, "summary": summary, "path": path, "sample": sample}
        tables[split] = Table(rows, keys=keys, frames=frames, **of)
    return tables


def read_summaries(paths: Sequence[Path], *, clips_bytes: int) -> dict[str, Summary] | None:
    """Read the summaries of an index, in the order of clips.jsonl; None if they are not those of this clips.jsonl."""
    found = {path.name.removesuffix(".json"): read_summary(path) for path in paths}
    good = {split: one for split, one in found.items() if one is not None and one.clips_bytes == clips_bytes}
    if not found or len(good) < len(found):
        return None
    return dict(sorted(good.items(), key=lambda item: item[1].place))


def thinned(lines: bytes, *, most: int) -> list[dict[str, Any]]:
    """Parse an even share of JSON lines, at most so many."""
    found = lines.splitlines()
    return [json.loads(line) for line in found[:: max(1, -(-len(found) // most))]]


def parsed(line: bytes, *, path: Path | str) -> dict[str, Any]:
    """Parse a line of clips.jsonl.

    Raises:
      UserError: it is no row.
    """
    try:
        row = json.loads(line)
        row["split"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(path)!r} has a line that is no clip ({error}): {line[:60]!r}; run `twinreel prepare` again"
        ) from error
    return row


def _gone_through(content: "mmap.mmap | bytes", *, path: Path) -> dict[str, Table]:
    """Gather the columns of a folder without an index."""
    gathered: dict[str, Gathered] = {}
    place = 0
    while place < len(content):
        end = content.find(b"\n", place)
        end = len(content) if end < 0 else end
        if line := content[place:end].strip():
            row = parsed(line, path=path)
            gathered.setdefault(row["split"], Gathered()).add(row, line=place, size=end - place)
        place = end + 1
    tables = {}
    for split, one in gathered.items():
        summary = one.end()
        rows, keys, frames = one.arrays()
        tables[split] = Table(rows, keys=keys, frames=frames, content=content, summary=summary, path=path)
    return tables
