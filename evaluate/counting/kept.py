"""Counts of a long job on disk, so that it continues where it was stopped."""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...base.errors import UserError
from ..npz import read_npz, write_npz
from .questions import Count, Pairs

_EVERY_S = 30.0


class Kept:
    """The counts of one process in `FOLDER/counting-P-of-N.npz`, whole or absent, for one input only."""

    def __init__(self, folder: Path | None, *, digest: str, process: tuple[int, int] = (0, 1)):
        """Take a folder; None keeps nothing.

        Args:
          folder: made if absent.
          digest: of everything that the counts depend on, see `digest_of`.
          process: this process's index, and how many there are.
        """
        self._path = folder / f"counting-{process[0]}-of-{process[1]}.npz" if folder else None
        self._digest, self._saved = digest, time.monotonic()

    def restore(self, counts: Sequence[Count]) -> int:
        """Fill `counts` with what was kept; return how many calls it covers, 0 where nothing fits."""
        if self._path is None or not self._path.is_file():
            return 0
        try:
            arrays = read_npz(self._path, wanted={"digest": "a string", "done": "int"})
        except UserError:
            arrays = {"digest": ""}
        if str(arrays["digest"]) != self._digest:
            print(f"{self._path} belongs to another input; counting starts from the beginning", file=sys.stderr)
            return 0
        for count in counts:
            count.counts[:] = arrays[count.question]
        done = int(arrays["done"])
        print(f"counting continues after {done:,} blocks, from {self._path}", file=sys.stderr)
        return done

    def save(self, counts: Sequence[Count], *, done: int) -> None:
        """Write the counts after `done` calls, unless they were written less than half a minute ago."""
        if self._path is None or time.monotonic() - self._saved < _EVERY_S:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {count.question: count.counts for count in counts}
        write_npz(self._path, digest=np.array(self._digest), done=np.array(done), **arrays)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the job is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def digest_of(pairs: Pairs, *, counts: Sequence[Count], shapes: str) -> str:
    """Return the SHA-256 of rows, captions and questions, and of the order in which blocks are counted."""
    made = hashlib.sha256(shapes.encode())
    for rows in (pairs.text.raw, pairs.video.raw):
        made.update(f"{rows.dtype} {rows.shape}".encode())
        for start in range(0, len(rows), 4096):
            made.update(rows[start : start + 4096].tobytes())
    made.update(pairs.video_of_text.tobytes())
    made.update(b"" if pairs.same_text is None else pairs.same_text.tobytes())
    for count in counts:
        made.update(count.question.encode())
        made.update(count.best.tobytes())
    return made.hexdigest()
