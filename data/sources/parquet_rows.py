"""Rows of Parquet tables, such as the `metadata.parquet` of Hugging Face's folders."""

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

from ...base.errors import UserError
from .notes import Notes

_ROWS = 4096  # read at a time
_LEFT_OUT = "values of Parquet columns left out (meta keeps numbers, truth values, texts and lists of them)"


class ParquetRows:
    """A Parquet file, row by row; a part of it at a time is in memory.

    Attributes:
      header: its columns.
    """

    def __init__(self, file: BinaryIO, *, path: str, notes: Notes):
        """Read the columns.

        Args:
          file: open for reading.
          path: for messages.
          notes: where values that no clip can hold are counted.

        Raises:
          UserError: no Parquet file.
        """
        import pyarrow
        import pyarrow.parquet

        self._path, self._notes, self._faults = path, notes, (pyarrow.ArrowException, OSError)
        try:
            self._file = pyarrow.parquet.ParquetFile(file)
        except self._faults as error:
            raise UserError(f"{path}: cannot be read as Parquet ({_line(error)}); write the file again") from error
        self.header: list[str] = list(self._file.schema_arrow.names)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place of each row and its cells; None where a cell is empty.

        Raises:
          UserError: a damaged part.
        """
        number = 0
        try:
            for batch in self._file.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    where = f"{self._path}, row {number}"
                    yield where, {name: self._cell(name, value, where=where) for name, value in row.items()}
        except self._faults as error:
            raise UserError(
                f"{self._path}, after row {number}: is damaged ({_line(error)}); fetch or write the file again"
            ) from error

    def _cell(self, name: str, value: Any, *, where: str) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return None  # pandas writes an empty cell of a column of numbers so
        if value is None or _plain(value):
            return value
        self._notes.add(_LEFT_OUT, name=f"{name} of {where}")
        return None


def _plain(value: Any) -> bool:
    """Tell whether JSON has such a value."""
    if isinstance(value, list):
        return all(_plain(one) for one in value)
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
