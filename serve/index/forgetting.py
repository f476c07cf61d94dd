"""Deletion of files from an index for good: rows, pictures, vectors of all models; and what must not come back."""

import dataclasses
import datetime
import sqlite3
from collections.abc import Mapping
from typing import Any

from . import database
from .approximate import build_approximate
from .listing import Entry
from .store import Store

_COLUMNS = "sha256, size, start_s, end_s, at, way, score, moments"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A file that was deleted from an index by example; nothing of its content, and not its name.

    Attributes:
      sha256: of its bytes, in hex.
      size: bytes.
      start_s: start of the window that was indexed; None = from the first picture.
      end_s: end of it; None = to the last picture.
      at: when, ISO 8601.
      way: how it was found: "embedding" or "face".
      score: its cosine with the example.
      moments: how many of its moments were deleted.
    """

    sha256: str
    size: int
    start_s: float | None
    end_s: float | None
    at: str
    way: str
    score: float
    moments: int

    def covers(self, entry: Entry) -> bool:
        """Whether a window of the same bytes shows something of what was deleted."""
        begins = entry.start_s or 0.0, self.start_s or 0.0
        ends = (float("inf") if end is None else end for end in (entry.end_s, self.end_s))
        return max(begins) < min(ends)


def read_forgotten(connection: sqlite3.Connection) -> list[Forgotten]:
    """Return what was deleted by example, the oldest first."""
    names = [field.name for field in dataclasses.fields(Forgotten)]
    rows = connection.execute(f"SELECT {_COLUMNS} FROM forgotten ORDER BY rowid")
    return [Forgotten(**dict(zip(names, row, strict=True))) for row in rows]


def forget_files(store: Store, scores: Mapping[int, float], *, way: str) -> None:
    """Delete files with all that an index has of them; they are not indexed again under any name.

    Killed at any moment, it is completed by the next call, or by the next run of `twinreel index`.

    Args:
      store: the index.
      scores: id of a file -> its cosine with the example, for the log.
      way: "embedding" or "face", for the log.
    """
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    connection = store.connection
    connection.execute("PRAGMA secure_delete = ON")  # deleted rows and pictures are overwritten, not only unlinked
    with connection:
        for file, score in scores.items():
            moments = store.scalar("SELECT COUNT(*) FROM moments WHERE file = ?", file)
            values: tuple[Any, ...] = (at, way, float(score), moments, file)
            connection.execute(
                f"INSERT INTO forgotten ({_COLUMNS}) SELECT sha256, size, start_s, end_s, ?, ?, ?, ? FROM files "
                "WHERE id = ?",
                values,
            )
            connection.execute("DELETE FROM failures WHERE key = (SELECT key FROM files WHERE id = ?)", (file,))
            connection.execute("DELETE FROM files WHERE id = ?", (file,))
    finish_forgetting(store)


def finish_forgetting(store: Store) -> None:
    """Write vectors and database anew without what was deleted, unless that was done."""
    if not store.scalar("SELECT COUNT(*) FROM forgotten WHERE NOT erased"):
        return
    for model in database.read_models(store.connection):
        new = store.compact(model, holes=0.0)
        if model.ann and new.generation != model.generation:  # the index of the old vectors is deleted with them
            build_approximate(store, model=new, kind="auto")
    store.remove_stale()  # of a deletion that was killed behind `compact`
    store.connection.execute("VACUUM")  # rows that were moved or deleted before have left copies in free space
    with store.connection as connection:
        connection.execute("UPDATE forgotten SET erased = 1")


def readmit(store: Store, sha256: str) -> int:
    """Let a file be indexed again; return how many entries of the log are removed."""
    with store.connection as connection:
        return connection.execute("DELETE FROM forgotten WHERE sha256 = ?", (sha256,)).rowcount
