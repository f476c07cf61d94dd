"""The columns of an index and the files that hold them; each split has its own.

    DIR/index/SPLIT.rows.npy       one `ROW` per record, in record order
    DIR/index/SPLIT.captions.npy   one `KEYS` per caption, those of a record side by side
    DIR/index/SPLIT.frames.npy     one `FRAME` per stored frame, those of a record side by side
    DIR/index/SPLIT.sample.jsonl   the texts of an even sample of the records, of a split with more than `SAMPLE`
    DIR/index/SPLIT.json           a `Summary`, written last

Arrays are read by memory-mapping, or in ranges where they lie behind a URL: nothing is read as a whole.
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .keys import alike_key, exact_key
from .parts import FRAME, PART

VERSION = 1
ENDINGS = (".json", ".rows.npy", ".captions.npy", ".frames.npy", ".sample.jsonl")  # of the files of a split
SAMPLE = 100_000  # records whose texts are looked at before training: for lengths, for a tokenizer
HEADER = 1024  # bytes before the first element of an array
_PART = 1 << 15  # rows that are held before they are written

ROW = np.dtype(
    [
        ("line", "<u8"),  # of clips.jsonl: where the record's line begins
        ("size", "<u4"),  # and its bytes, without the newline
        ("captions", "<u4"),  # how many
        ("first", "<u8"),  # place of the first of them among the keys
        ("group", "<u8"),  # key of its group, 0 = none
        ("file", "<u8"),  # key of its media file, 0 = none
        ("label", "<i4"),  # place of its first label among the labels of the summary, -1 = none
        ("num_frames", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("duration_s", "<f4"),
        ("frame", "<u8"),  # place of the first of its frames among all
        *PART.descr,
    ]
)
KEYS = np.dtype([("exact", "<u8"), ("alike", "<u8")])


@dataclasses.dataclass(kw_only=True)
class Summary:
    """What is known of a split as a whole.

    Attributes:
      rows: records n.
      place: where in clips.jsonl the first of them is.
      clips_bytes: size of the clips.jsonl that the index is of.
      sizes: `(height, width)` of frames, in pixels -> the first record with such frames.
      features: modality -> its widths D -> the first record that has it.
      foils: what is changed -> records with such a foil.
      num_frames: frames stored -> records with so many.
      sound: records with sound.
      labels: first labels of the records, in the order in which they come.
      groups: how many there are.
      torn: groups whose records lie in several shards.
      parts: whether it is known where the parts of records lie.
      sampled: records in the sample of texts; 0 = there is no such file, as all records are few enough.
    """

    rows: int = 0
    place: int = 0
    clips_bytes: int = 0
    sizes: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    features: dict[str, dict[int, int]] = dataclasses.field(default_factory=dict)
    foils: Counter[str] = dataclasses.field(default_factory=Counter)
    num_frames: Counter[int] = dataclasses.field(default_factory=Counter)
    sound: int = 0
    labels: list[str] = dataclasses.field(default_factory=list)
    groups: int = 0
    torn: int = 0
    parts: bool = False
    sampled: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        fields = vars(self) | {"version": VERSION, "sizes": [[*size, row] for size, row in self.sizes.items()]}
        return fields | {"features": {name: list(map(list, w.items())) for name, w in self.features.items()}}

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> "Summary":
        """Read what `to_json` has made; ValueError, KeyError or TypeError if it is something else."""
        if fields.pop("version") != VERSION:
            raise ValueError("another version")
        made = cls(**fields)
        made.sizes = {(height, width): row for height, width, row in fields["sizes"]}
        made.features = {name: dict(widths) for name, widths in fields["features"].items()}
        made.num_frames = Counter({int(n): count for n, count in fields["num_frames"].items()})
        made.foils = Counter(fields["foils"])
        return made


class Gathered:
    """The columns of a split, gathered row by row; held in memory, or written to files in parts.

    Attributes:
      summary: of the rows so far.
    """

    def __init__(self, files: "tuple[BinaryIO, BinaryIO, BinaryIO] | None" = None):
        """Begin; `files` take rows, keys and frames, None = they stay in memory."""
        self.summary = Summary()
        self._files, self._rows, self._keys, self._captions = files, [], [], 0
        self._stored, self._frames = [], 0
        self._labels: dict[str, int] = {}
        self._groups: dict[int, int] = {}  # key -> the shard in which it was last seen
        self._torn: set[int] = set()

    def add(
        self,
        row: dict[str, Any],
        *,
        line: int,
        size: int,
        shard: int = 0,
        parts: tuple[np.void, np.ndarray] | None = None,
    ) -> None:
        """Take a row.

        Args:
          row: a line of clips.jsonl.
          line: where it begins, bytes.
          size: its bytes.
          shard: number of the shard with its record.
          parts: the record's `PART`, and `FRAME` [n] of its frames; None = not known.
        """
        own, captions = self.summary, row.get("captions") or []
        own.place = own.place if own.rows else line
        label = (row.get("labels") or [None])[0]
        place = -1 if label is None else self._labels.setdefault(label, len(self._labels))
        group, file = row.get("group") or "", row.get("file") or ""
        key = exact_key(group) if group else 0
        frames, height, width = (int(row.get(name) or 0) for name in ("num_frames", "height", "width"))
        sizes = (frames, height, width, row.get("duration_s") or 0.0)
        part = parts[0].item() if parts else (0,) * len(PART.descr)
        named = (key, exact_key(file) if file else 0, place)
        self._rows.append((line, size, len(captions), self._captions, *named, *sizes, self._frames, *part))
        if parts:
            self._stored.append(parts[1])
            self._frames += len(parts[1])
            own.parts = True
        self._keys += [(exact_key(text), alike_key(text)) for text in captions]
        self._captions += len(captions)
        own.sizes.setdefault((height, width), own.rows)
        for name, shape in (row.get("features") or {}).items():
            own.features.setdefault(name, {}).setdefault(shape[1], own.rows)
        own.foils.update((row.get("foils") or {}).keys())
        own.num_frames[frames] += 1
        own.sound += bool(row.get("has_audio"))
        if key and self._groups.setdefault(key, shard) != shard:
            self._torn.add(key)
        own.rows += 1
        if self._files and len(self._rows) >= _PART:
            self._flush()

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is in memory: rows, `ROW` [n], keys, `KEYS` [m], and frames, `FRAME` [f]."""
        frames = np.concatenate([np.zeros(0, FRAME), *self._stored])
        return np.array(self._rows, ROW), np.array(self._keys, KEYS), frames

    def end(self) -> Summary:
        """Write what is left; return the summary."""
        self.summary.labels = list(self._labels)
        self.summary.groups, self.summary.torn = len(self._groups), len(self._torn)
        if self._files:
            self._flush()
            for file, dtype, count in zip(
                self._files, (ROW, KEYS, FRAME), (self.summary.rows, self._captions, self._frames), strict=True
            ):
                file.seek(0)
                file.write(header(dtype, count=count))
        return self.summary

    def _flush(self) -> None:
        assert self._files is not None
        for file, array in zip(self._files, self.arrays(), strict=True):
            if not file.tell():
                file.write(bytes(HEADER))
            file.write(array.tobytes())
        self._rows, self._keys, self._stored = [], [], []


def header(dtype: np.dtype, *, count: int) -> bytes:
    """Return the header of an .npy file of `count` elements, always of `HEADER` bytes."""
    text = f"{{'descr': {dtype.descr!r}, 'fortran_order': False, 'shape': ({count},), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def mapped(path: Path) -> np.ndarray:
    """Open an array of an index without reading it."""
    empty = path.stat().st_size <= HEADER  # an empty file cannot be mapped
    return np.load(path) if empty else np.load(path, mmap_mode="r")


def read_summary(path: Path) -> Summary | None:
    """Read SPLIT.json; None if there is none, or one of another version."""
    try:
        return Summary.of_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
