"""Which files of an index are searched: by folder, date, duration and label."""

import dataclasses
import datetime
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ...base.errors import UserError, unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """Conditions that all hold.

    Attributes:
      folder: the files below this folder; "" = all.
      after: files last written on this day or later, `YYYY-MM-DD`; "" = any.
      before: files last written before this day.
      min_duration: seconds; None = any.
      max_duration: seconds; None = any.
      labels: files with any of these labels; () = all.
    """

    folder: str = ""
    after: str = ""
    before: str = ""
    min_duration: float | None = None
    max_duration: float | None = None
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Filters()

    def files(self, connection: sqlite3.Connection) -> Int64[np.ndarray, "k"] | None:
        """Return the ids of the files that are searched, increasing; None = all.

        Raises:
          UserError: no file is left, a label that no file has, or a date that is none.
        """
        if not self:
            return None
        where, values = self._conditions(connection)
        rows = connection.execute(f"SELECT id FROM files WHERE {' AND '.join(where)} ORDER BY id", values)
        found = np.array([row[0] for row in rows], np.int64)
        if not len(found):
            given = {key: value for key, value in dataclasses.asdict(self).items() if value not in ("", None, ())}
            raise UserError(f"no file of the index meets all of {given}; leave a condition out")
        return found

    def _conditions(self, connection: sqlite3.Connection) -> tuple[list[str], list[Any]]:
        where, values = [], []
        if self.folder:
            folder = f"{Path(self.folder).expanduser().resolve()}/"
            where.append("substr(path, 1, ?) = ?")
            values += [len(folder), folder]
        for day, sign in ((self.after, ">="), (self.before, "<")):
            if day:
                where.append(f"mtime_ns {sign} ?")
                values.append(_nanoseconds(day))
        for seconds, sign in ((self.min_duration, ">="), (self.max_duration, "<=")):
            if seconds is not None:
                where.append(f"duration_s {sign} ?")
                values.append(seconds)
        if self.labels:
            known = {row[0] for row in connection.execute("SELECT DISTINCT label FROM labels")}
            for label in self.labels:
                if label not in known:
                    raise unknown("label", label, known)
            marks = ", ".join("?" * len(self.labels))
            where.append(f"id IN (SELECT file FROM labels WHERE label IN ({marks}))")
            values += self.labels
        return where, values


def _nanoseconds(day: str) -> int:
    """Return the time of a day's beginning, in local time, as file systems count it."""
    try:
        return int(datetime.datetime.fromisoformat(day).timestamp() * 1e9)
    except ValueError as error:
        raise UserError(f"{day!r} is no date; write YYYY-MM-DD, such as 2026-05-01") from error
