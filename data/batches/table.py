"""The lines of clips.jsonl, looked up in the file when they are wanted: memory holds where each begins, no more."""

import array
import dataclasses
import functools
import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ...base.errors import UserError

_FIRST = b'{"split": "'  # how `prepare` begins a line: the split is known without parsing the rest


@dataclasses.dataclass(kw_only=True)
class Columns:
    """What is needed of all rows before the first is read.

    Attributes:
      captions: int32 [n], number of captions.
      groups: the group of each row, "" for none.
      sizes: `(height, width)` of frames, in pixels -> a row with such frames.
      features: modality -> its widths D -> a row that has it.
    """

    captions: np.ndarray
    groups: list[str]
    sizes: dict[tuple[int, int], int]
    features: dict[str, dict[int, int]]


class Table(Sequence[dict[str, Any]]):
    """The rows of one split, in record order; each is parsed when it is asked for. Any thread may ask."""

    def __init__(self, content: "mmap.mmap | bytes", *, begins: Sequence[int], path: Path):
        self._content, self._path = content, path
        self._begins = np.asarray(begins, np.int64)

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin = int(self._begins[index])
        end = self._content.find(b"\n", begin)
        return _parsed(self._content[begin : end if end >= 0 else None], path=self._path)

    @functools.cached_property
    def columns(self) -> Columns:
        """What is needed of all rows at once; the first call goes through the file."""
        captions = array.array("i")
        columns = Columns(captions=np.zeros(0), groups=[], sizes={}, features={})
        for i, row in enumerate(self):
            captions.append(len(row["captions"]))
            columns.groups.append(row["group"] or "")  # one and the same string where there is none
            columns.sizes.setdefault((row["height"], row["width"]), i)
            for name, (_, width) in row["features"].items():
                columns.features.setdefault(name, {}).setdefault(width, i)
        columns.captions = np.array(captions, np.int32)
        return columns


def read_tables(path: Path) -> dict[str, Table]:
    """Open clips.jsonl; return its rows by split.

    Raises:
      UserError: a line that is no row.
    """
    begins: dict[str, array.array[int]] = {}
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        place = 0
        for line in file:
            if line.strip():
                begins.setdefault(_split(line, path=path), array.array("q")).append(place)
            place += len(line)
    return {split: Table(content, begins=found, path=path) for split, found in begins.items()}


def _split(line: bytes, *, path: Path) -> str:
    if line.startswith(_FIRST):
        name = line[len(_FIRST) : line.index(b'"', len(_FIRST))]
        if b"\\" not in name:
            return name.decode()
    return _parsed(line, path=path)["split"]


def _parsed(line: bytes, *, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
        row["split"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(path)!r} has a line that is no clip ({error}): {line[:60]!r}; run `twinreel prepare` again"
        ) from error
    return row
