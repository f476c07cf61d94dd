"""An index opened for searching: its model, its sides, and what is known of its files and moments."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...data.clip import Sentence
from ..index import database
from ..index.nearest import Side
from ..index.store import sentences_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileInfo:
    """What an index knows of a file.

    Attributes:
      id: its number in the index.
      path: absolute.
      start_s: start of the window that was indexed, in seconds; None = of the whole file.
      duration_s: length in seconds; None where unknown.
      fps: frames per second; None where unknown, or of a picture.
      height: in pixels.
      width: in pixels.
      has_audio: whether there is anything to hear.
      mtime_ns: when it was last written.
      captions: texts of the clip.
      labels: class names.
    """

    id: int
    path: str
    start_s: float | None
    duration_s: float | None
    fps: float | None
    height: int | None
    width: int | None
    has_audio: bool
    mtime_ns: int
    captions: tuple[str, ...]
    labels: tuple[str, ...]


class Collection:
    """An index that is searched by one of its models."""

    def __init__(self, folder: Path, *, model: str = ""):
        """Open an index for reading.

        Args:
          folder: the index.
          model: name of one of its models; "" = the first one.

        Raises:
          UserError: no index, no such model, or nothing embedded by it.
        """
        self.folder = folder
        self.connection = database.connect(folder)
        self.settings = database.read_settings(self.connection)
        self.model = database.model_named(self.connection, model, folder=folder)
        self._sides: dict[str, Side] = {}
        self.sides = tuple(
            row[0]
            for row in self.connection.execute(
                "SELECT DISTINCT side FROM vectors WHERE model = ? ORDER BY side = 'video' DESC, side", (self.model.id,)
            )
        )

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    def side(self, name: str) -> Side:
        """Return the embeddings of a side, read at the first use."""
        if name not in self._sides:
            self._sides[name] = Side(self.connection, folder=self.folder, model=self.model, side=name)
        return self._sides[name]

    def files(self, ids: Iterable[int]) -> dict[int, FileInfo]:
        """Return what is known of files, by their id."""
        found = {}
        columns = "id, path, start_s, duration_s, fps, height, width, has_audio, mtime_ns, captions"
        for file in ids:
            row = self.connection.execute(f"SELECT {columns} FROM files WHERE id = ?", (file,)).fetchone()
            if row is None:
                continue  # left the index since it was opened
            labels = self.connection.execute("SELECT label FROM labels WHERE file = ? ORDER BY label", (file,))
            values: dict[str, Any] = dict(zip(columns.split(", "), row, strict=True))
            values["captions"], values["labels"] = tuple(json.loads(row[-1])), tuple(label for (label,) in labels)
            values["has_audio"] = bool(values["has_audio"])
            found[file] = FileInfo(**values)
        return found

    def moments(self, file: int) -> dict[int, tuple[float, float]]:
        """Return start and end of a file's moments in seconds, by their id, in order of time."""
        query = "SELECT id, start_s, end_s FROM moments WHERE file = ? ORDER BY number"
        return {row[0]: (row[1], row[2]) for row in self.connection.execute(query, (file,))}

    def sentences(self, file: int) -> tuple[Sentence, ...]:
        """Return what is said in a file."""
        row = self.connection.execute("SELECT sentences FROM files WHERE id = ?", (file,)).fetchone()
        return sentences_of(row[0]) if row else ()

    def vector(self, moment: int, *, side: str) -> np.ndarray:
        """Return the embedding of a moment, float32 [1,E]; [0,E] if it has none on this side."""
        found = self.side(side)
        places = found.find(np.array([moment]))
        return found.vectors(places[places >= 0])
