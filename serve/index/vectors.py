"""Files of embeddings: rows of float32 one after another, appended to and mapped into memory."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from ...base.errors import UserError

_ITEM = 4  # bytes of a float32


def vector_file(folder: Path, *, model: int, side: str, generation: int) -> Path:
    """Return the path of the vectors of a model's side."""
    return folder / "vectors" / f"{model}-{side}-{generation}.f32"


class VectorWriter:
    """Appends rows to a file of vectors."""

    def __init__(self, path: Path, *, width: int, rows: int):
        """Open the file of which the database knows `rows` rows.

        Rows behind them, of a process that was killed, stay unused: readers may have mapped the file, which must
        therefore never become shorter.

        Raises:
          UserError: the file has fewer rows than the database says.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._width, self._rows = width, self._file.tell() // (width * _ITEM)
        if self._rows < rows:
            self._file.close()
            raise _damaged(path, rows=rows, width=width)
        self._file.truncate(self._rows * width * _ITEM)

    def append(self, vectors: Float32[np.ndarray, "n E"]) -> int:
        """Append rows; return the number of the first one. They are on disk after `sync`."""
        assert vectors.shape[1] == self._width
        first = self._rows
        self._file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        self._rows += len(vectors)
        return first

    def sync(self) -> None:
        """Return when the rows are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def map_vectors(path: Path, *, width: int, rows: int) -> Float32[np.ndarray, "rows E"]:
    """Map the first `rows` rows of a file of vectors into memory, for reading.

    Raises:
      UserError: the file is missing, or has fewer rows.
    """
    if rows == 0:
        return np.zeros((0, width), np.float32)
    if not path.is_file() or path.stat().st_size < rows * width * _ITEM:
        raise _damaged(path, rows=rows, width=width)
    return np.memmap(path, dtype="<f4", mode="r", shape=(rows, width))


def count_rows(path: Path, *, width: int) -> int:
    """Return how many whole rows a file of vectors has, those of removed moments included; 0 if there is none."""
    return path.stat().st_size // (width * _ITEM) if path.is_file() else 0


def write_compact(path: Path, *, source: np.ndarray, rows: Int64[np.ndarray, "n"]) -> None:
    """Write chosen rows of a file of vectors to a new file."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for start in range(0, len(rows), 65_536):
            file.write(np.ascontiguousarray(source[rows[start : start + 65_536]], "<f4").tobytes())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _damaged(path: Path, *, rows: int, width: int) -> UserError:
    found = path.stat().st_size if path.is_file() else 0
    return UserError(
        f"{path} has {found:,} bytes, but the index says {rows:,} vectors of width {width} ({rows * width * _ITEM:,} "
        "bytes): the file was cut short or replaced; restore it, or delete the index and make it again"
    )
