"""Write clips.jsonl together with its index: one pass over the rows, none of which is kept."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..layout import INDEX
from ..manifest import write_whole
from .columns import SAMPLE, Gathered

_TEXTS = ("captions", "transcript", "sentences")  # fields of a row that hold texts


def write_clips(folder: Path, *, rows: "Iterable[tuple[int, dict[str, Any]]]", counts: dict[str, int]) -> None:
    """Write clips.jsonl and its index, each file whole or not at all.

    Args:
      folder: the prepared folder.
      rows: of each record the number of its shard in the split, and its line; split by split.
      counts: records by split.
    """
    index = folder / INDEX
    shutil.rmtree(index, ignore_errors=True)
    index.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        splits = {split: stack.enter_context(_Split(index, split=split, count=n)) for split, n in counts.items()}
        write_whole(folder / "clips.jsonl", parts=_lines(rows, splits=splits))
    size = (folder / "clips.jsonl").stat().st_size
    for split, one in splits.items():
        summary = one.gathered.end()
        one.close()
        summary.clips_bytes, summary.sampled = size, one.sampled
        write_whole(index / f"{split}.json", parts=[json.dumps(summary.to_json(), ensure_ascii=False), "\n"])


def write_index(folder: Path, *, shards: dict[str, list[int]]) -> None:
    """Write the index of a folder that has clips.jsonl; `shards` holds, by split, the records of each shard."""
    counts = {split: sum(lengths) for split, lengths in shards.items()}
    numbers = {split: (i for i, n in enumerate(lengths) for _ in range(n)) for split, lengths in shards.items()}
    with (folder / "clips.jsonl").open("rb") as file:
        rows = map(json.loads, file)
        write_clips(folder, rows=((next(numbers[row["split"]]), row) for row in rows), counts=counts)


def _lines(rows: "Iterable[tuple[int, dict[str, Any]]]", *, splits: "dict[str, _Split]") -> Iterator[str]:
    place = 0
    for shard, row in rows:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        size = len(line.encode())
        splits[row["split"]].add(row, line=place, size=size, shard=shard)
        place += size + 1
        yield f"{line}\n"


class _Split:
    """The files of one split while they are written."""

    def __init__(self, folder: Path, *, split: str, count: int):
        names = [folder / f"{split}.{name}" for name in ("rows.npy", "captions.npy")]
        self._open: list[BinaryIO | TextIO] = [path.open("w+b") for path in names]
        self.gathered = Gathered((self._open[0], self._open[1]))  # pyright: ignore[reportArgumentType]
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

    def add(self, row: dict[str, Any], *, line: int, size: int, shard: int) -> None:
        self.gathered.add(row, line=line, size=size, shard=shard)
        if self._sample is not None and self._seen % self._step == 0:
            self._sample.write(json.dumps({k: row[k] for k in _TEXTS if k in row}, ensure_ascii=False) + "\n")
            self.sampled += 1
        self._seen += 1

    def close(self) -> None:
        for file in self._open:
            file.flush()
            os.fsync(file.fileno())
            file.close()
