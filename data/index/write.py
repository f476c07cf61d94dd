"""Write clips.jsonl together with its index: one pass over the rows, none of which is kept."""

import collections
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..layout import INDEX
from ..manifest import write_whole
from .columns import SAMPLE, Gathered
from .parts import Parts, find_parts

_TEXTS = ("captions", "transcript", "sentences")  # fields of a row that hold texts


def write_clips(
    folder: Path, *, shards: "Iterable[tuple[int, Sequence[dict[str, Any]], Parts | None]]", counts: dict[str, int]
) -> None:
    """Write clips.jsonl and its index, each whole or not at all.

    Args:
      folder: the prepared folder.
      shards: of each shard, split by split, its number in the split, the lines of its records, and where the parts of
        these lie, None = not known.
      counts: records by split.
    """
    index = folder / f".{INDEX}.tmp"
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        splits = {split: stack.enter_context(_Split(index, split=split, count=n)) for split, n in counts.items()}
        write_whole(folder / "clips.jsonl", parts=_lines(shards, splits=splits))
    size = (folder / "clips.jsonl").stat().st_size
    for split, one in splits.items():
        summary = one.gathered.end()
        one.close()
        summary.clips_bytes, summary.sampled = size, one.sampled
        write_whole(index / f"{split}.json", parts=[json.dumps(summary.to_json(), ensure_ascii=False), "\n"])
    shutil.rmtree(folder / INDEX, ignore_errors=True)
    index.rename(folder / INDEX)


def write_index(folder: Path, *, shards: Sequence[tuple[str, int, Path | None]]) -> None:
    """Write the index of a folder that has clips.jsonl.

    Args:
      folder: the prepared folder.
      shards: in the order of clips.jsonl, the split of each shard, how many records it has, and its file, if its
        records' parts are to be found.
    """
    counts, numbers = collections.Counter[str](), collections.Counter[str]()
    for split, count, _ in shards:
        counts[split] += count
    with (folder / "clips.jsonl").open("rb") as file:
        rows = map(json.loads, file)

        def read() -> Iterator[tuple[int, list[dict[str, Any]], Parts | None]]:
            for split, count, path in shards:
                yield numbers[split], list(itertools.islice(rows, count)), find_parts(path) if path else None
                numbers[split] += 1

        write_clips(folder, shards=read(), counts=counts)


def text_fields(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row that hold texts."""
    return {name: row[name] for name in _TEXTS if name in row}


def _lines(
    shards: "Iterable[tuple[int, Sequence[dict[str, Any]], Parts | None]]", *, splits: "dict[str, _Split]"
) -> Iterator[str]:
    place = 0
    for number, rows, parts in shards:
        ends = [0] * len(rows) if parts is None else parts.counts.cumsum().tolist()
        for i, (row, end) in enumerate(zip(rows, ends, strict=True)):
            line = json.dumps(row, ensure_ascii=False, allow_nan=False)
            size = len(line.encode())
            own = None if parts is None else (parts.records[i], parts.frames[end - int(parts.counts[i]) : end])
            splits[row["split"]].add(row, line=place, size=size, shard=number, parts=own)
            place += size + 1
            yield f"{line}\n"


class _Split:
    """The files of one split while they are written."""

    def __init__(self, folder: Path, *, split: str, count: int):
        rows, keys, frames = ((folder / f"{split}.{n}.npy").open("w+b") for n in ("rows", "captions", "frames"))
        self._open: list[BinaryIO | TextIO] = [rows, keys, frames]
        self.gathered = Gathered((rows, keys, frames))
        self._step, self._seen, self.sampled = -(-count // SAMPLE), 0, 0
        self._sample = None
        if self._step > 1:
            self._sample = (folder / f"{split}.sample.jsonl").open("w", encoding="utf-8", newline="\n")
            self._open.append(self._sample)

    def __enter__(self) -> "_Split":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            for file in self._open:
                file.close()

    def add(self, row: dict[str, Any], **place: Any) -> None:
        self.gathered.add(row, **place)
        if self._sample is not None and self._seen % self._step == 0:
            self._sample.write(json.dumps(text_fields(row), ensure_ascii=False) + "\n")
            self.sampled += 1
        self._seen += 1

    def close(self) -> None:
        for file in self._open:
            file.flush()
            os.fsync(file.fileno())
            file.close()
