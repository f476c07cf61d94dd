"""Join the lists of clips of prepared folders, and their indexes, without a look into the shards."""

import contextlib
import json
import mmap
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...base.errors import UserError
from ..layout import INDEX
from ..manifest import write_whole
from .columns import SAMPLE, Summary, header, mapped, read_summary
from .write import text_fields

_ARRAYS = ("rows", "captions", "frames")
_AT_ONCE = 1 << 20  # elements of an array
_HEAD = re.compile(rb'\{"split": ("(?:[^"\\]|\\.)*"), "index": (\d+)(?=, )')  # how `prepare` begins a line


class Member(NamedTuple):
    """A prepared folder, and the split and the records of each of its shards, in the order of clips.jsonl."""

    folder: Path
    shards: Sequence[tuple[str, int]]


def join_clips(out: Path, *, members: Sequence[Member]) -> None:
    """Write clips.jsonl and its index of several folders into `out`, each whole or not at all.

    In each split the records of a folder follow those of the folders before it. The lines of the first folder are
    copied as they are; in those of the others, `index` is counted on.

    Raises:
      UserError: a folder has no index, or one that is not that of its clips.jsonl.
    """
    opened = [_Opened(member) for member in members]
    index = out / f".{INDEX}.tmp"
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir(parents=True)
    with _new_file(out / "clips.jsonl") as file:
        before: dict[str, int] = {}
        for number, one in enumerate(opened):
            one.copy_lines(file, before=before if number else None)
            for split, summary in one.summaries.items():
                before[split] = before.get(split, 0) + summary.rows
    with (out / "clips.jsonl").open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    for split in before:
        having = [one for one in opened if split in one.summaries]
        summary = _join_split(index, split=split, members=having, clips=content)
        summary.clips_bytes = size
        write_whole(index / f"{split}.json", parts=[json.dumps(summary.to_json(), ensure_ascii=False), "\n"])
    shutil.rmtree(out / INDEX, ignore_errors=True)
    index.rename(out / INDEX)


class _Opened:
    """A folder whose index has been looked at.

    Attributes:
      summaries: by split, in the order of clips.jsonl.
      places: by split, where the lines that `copy_lines` wrote begin, and their bytes; of lines that stay where they
        were, nothing.
    """

    def __init__(self, member: Member):
        self._folder = member.folder
        self.places: dict[str, tuple[array, array]] = {}
        self.counts: dict[str, list[int]] = {}
        for split, count in member.shards:
            self.counts.setdefault(split, []).append(count)
        self.summaries: dict[str, Summary] = {}
        size = (self._folder / "clips.jsonl").stat().st_size
        for split, counts in self.counts.items():
            summary = read_summary(self._folder / INDEX / f"{split}.json")
            if summary is None or summary.clips_bytes != size or summary.rows != sum(counts):
                raise UserError(
                    f"{str(self._folder)!r} has no index that fits its clips.jsonl (split {split!r}); run its own "
                    "`twinreel prepare` command again, which writes one"
                )
            self.summaries[split] = summary

    def copy_lines(self, file: BinaryIO, *, before: dict[str, int] | None) -> None:
        """Append the lines to a file; `before` counts the records of each split that are in it, None = it is empty."""
        with (self._folder / "clips.jsonl").open("rb") as lines:
            if before is None:
                shutil.copyfileobj(lines, file, 1 << 20)
                return
            self.places = {split: (array("Q"), array("L")) for split in self.summaries}
            place = file.tell()
            for split, line in _counted_on(lines, before=before):
                begins, sizes = self.places[split]
                begins.append(place)
                sizes.append(len(line) - 1)
                place += file.write(line)

    def columns(self, split: str, *, name: str) -> np.ndarray:
        """Return an array of the index, memory-mapped."""
        return mapped(self._folder / INDEX / f"{split}.{name}.npy")


def _counted_on(lines: Iterable[bytes], *, before: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield the split of each line, and the line with its `index` counted on; each ends with a newline."""
    names: dict[bytes, str] = {}
    for line in lines:
        line = line.rstrip(b"\n") + b"\n"
        found = _HEAD.match(line)
        if found is None:  # not as `prepare` writes it
            row = json.loads(line)
            row["index"] += before.get(row["split"], 0)
            yield row["split"], json.dumps(row, ensure_ascii=False).encode() + b"\n"
            continue
        if found[1] not in names:
            names[found[1]] = json.loads(found[1])
        split = names[found[1]]
        index = int(found[2]) + before.get(split, 0)
        yield split, b'{"split": %b, "index": %d%b' % (found[1], index, line[found.end() :])


def _join_split(index: Path, *, split: str, members: Sequence[_Opened], clips: "mmap.mmap | bytes") -> Summary:
    """Write the arrays of a split; return its summary."""
    columns = [{name: one.columns(split, name=name) for name in _ARRAYS} for one in members]
    joined, shift = _joined([one.summaries[split] for one in members]), {"first": 0, "frame": 0}
    for name in _ARRAYS[1:]:
        _write(index / f"{split}.{name}.npy", arrays=[arrays[name] for arrays in columns])
    changed = []
    for one, arrays in zip(members, columns, strict=True):
        changed.append((arrays["rows"], _Changes(joined, one=one, split=split, shift=dict(shift))))
        shift["first"] += len(arrays["captions"])
        shift["frame"] += len(arrays["frames"])
    path = index / f"{split}.rows.npy"
    _write(path, arrays=[rows for rows, _ in changed], changes=[change for _, change in changed])
    rows = mapped(path)
    joined.place = int(rows["line"][0]) if len(rows) else 0
    counts = [count for one in members for count in one.counts[split]]
    joined.groups, joined.torn = _count_groups(rows, ends=np.cumsum(counts))
    if (step := -(-joined.rows // SAMPLE)) > 1:
        with _new_file(index / f"{split}.sample.jsonl") as file:
            for row in rows[::step]:
                line = clips[int(row["line"]) : int(row["line"]) + int(row["size"])]
                file.write(json.dumps(text_fields(json.loads(line)), ensure_ascii=False).encode() + b"\n")
                joined.sampled += 1
    return joined


class _Changes:
    """How the rows of one folder change when they follow those of others."""

    def __init__(self, joined: Summary, *, one: _Opened, split: str, shift: dict[str, int]):
        self._shift = shift
        self._lines = [np.frombuffer(part, part.typecode) for part in one.places.get(split, ())]
        places = {label: place for place, label in enumerate(joined.labels)}
        self._labels = np.array([places[label] for label in one.summaries[split].labels] + [-1], np.int32)

    def __call__(self, rows: np.ndarray, begin: int) -> np.ndarray:
        """Return the changed rows, `ROW` [n], of which the first is number `begin` of its folder."""
        made = rows.copy()
        for name, count in self._shift.items():
            made[name] += np.uint64(count)
        made["label"] = self._labels[rows["label"]]  # -1 = none is the last
        for name, values in zip(("line", "size"), self._lines, strict=False):
            made[name] = values[begin : begin + len(rows)]
        return made


def _joined(summaries: Sequence[Summary]) -> Summary:
    """Return what is known of a split from what is known of its parts, but for places and groups."""
    joined, labels = Summary(), dict[str, None]()
    joined.parts = all(one.parts for one in summaries)
    for one in summaries:
        for size, row in one.sizes.items():
            joined.sizes.setdefault(size, row + joined.rows)
        for name, widths in one.features.items():
            for width, row in widths.items():
                joined.features.setdefault(name, {}).setdefault(width, row + joined.rows)
        joined.foils.update(one.foils)
        joined.num_frames.update(one.num_frames)
        joined.sound += one.sound
        labels |= dict.fromkeys(one.labels)
        joined.rows += one.rows
    joined.labels = list(labels)
    return joined


def _count_groups(rows: np.ndarray, *, ends: np.ndarray) -> tuple[int, int]:
    """Return how many groups there are, and how many have records in several shards."""
    grouped = np.flatnonzero(rows["group"])
    pairs = np.empty(len(grouped), [("key", "<u8"), ("shard", "<u8")])
    pairs["key"], pairs["shard"] = rows["group"][grouped], np.searchsorted(ends, grouped, side="right")
    _, shards = np.unique(np.unique(pairs)["key"], return_counts=True)
    return len(shards), int((shards > 1).sum())


def _write(path: Path, *, arrays: Sequence[np.ndarray], changes: "Sequence[_Changes] | None" = None) -> None:
    """Write arrays one behind the other as one .npy file."""
    with _new_file(path) as file:
        file.write(header(arrays[0].dtype, count=sum(map(len, arrays))))
        for number, rows in enumerate(arrays):
            for begin in range(0, len(rows), _AT_ONCE):
                part = rows[begin : begin + _AT_ONCE]
                file.write((changes[number](part, begin) if changes else part).tobytes())


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its place when it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
