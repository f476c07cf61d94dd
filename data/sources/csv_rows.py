"""The rows of a CSV file with the lines in which they begin; the separator is recognised, and faults are located."""

import codecs
import csv
from collections.abc import Collection, Iterator
from typing import BinaryIO

from ...base.errors import UserError

_LONGEST_FIELD = 64 * 2**20  # characters of a field; Python's default of 128 KiB is short for a long transcript
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class CsvRows:
    """The rows of a CSV file (RFC 4180, UTF-8), read once from its beginning.

    Attributes:
      header: the cells of the first row, in lower case and without blanks around them.
      separator: the character between the fields.
    """

    def __init__(self, file: BinaryIO, *, path: str, known: Collection[str], separator: str = ","):
        """Read the header.

        Args:
          file: the file, at its beginning.
          path: names the file in error messages.
          known: column names by which the separator is recognised in the header: of commas, tabs, semicolons and
            vertical bars, the one that gives the most of them.
          separator: the one to use where the header does not tell.

        Raises:
          UserError: a header that is no row of a CSV file in UTF-8.
        """
        csv.field_size_limit(_LONGEST_FIELD)
        self._path = path
        self._lines = _TextLines(file, path=path)
        self.separator = _separator(self._lines.first, known=known, usual=separator)
        self._reader = csv.reader(self._lines, delimiter=self.separator, strict=True)
        self.header = [name.strip().lower() for name in next(self._rows(), (0, []))[1]]

    @property
    def separated_by(self) -> str:
        """What stands between the fields, in words ("tabs")."""
        return _SEPARATORS[self.separator]

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows below the header, each with the number of the line in which it begins; blank rows are skipped.

        Raises:
          UserError: quotes that do not fit, or bytes that are not UTF-8; what follows cannot be read.
        """
        return ((line, row) for line, row in self._rows() if any(cell.strip() for cell in row))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            begin = self._lines.begin_row()
            try:
                row = next(self._reader, None)
            except csv.Error as error:
                raise self._fault(str(error), begin=begin) from error
            if row is None:
                return
            yield begin, row

    def _fault(self, what: str, *, begin: int) -> UserError:
        line = begin + _last_opening(self._lines.row, separator=self.separator)
        where = f"{self._path}, line {line}"
        if "unexpected end" in what:
            return UserError(f'{where}: the quote that opens here is never closed; close it, or write "" for a quote')
        if "field larger" in what:
            return UserError(
                f"{where}: the field that begins here has more than {_LONGEST_FIELD:,} characters; is its quote closed?"
            )
        if "expected after" in what:
            end = begin + len(self._lines.row) - 1
            closed = "" if end == line else f" in line {end}"
            return UserError(
                f"{where}: text follows the quote that closes the field{closed} whose quote opens here; close it where "
                'its text ends, and write a quote inside it twice, as "a ""quoted"" word"'
            )
        return UserError(f"{where}: is not a row of a CSV file ({what}); correct the line")


class _TextLines:
    """The lines of a text file as csv.reader takes them, decoded one by one.

    Attributes:
      first: the first line.
      row: the lines of the row that is being read.
    """

    def __init__(self, file: BinaryIO, *, path: str):
        self._path, self._count = path, 0
        self._lines = self._decoded(file)
        self.row: list[str] = []
        self.first = next(self._lines, "")
        hints = {f"sep={separator}".strip() for separator in _SEPARATORS}  # the first line may be such a hint for Excel
        while self.first and (not self.first.strip() or self.first.strip().lower() in hints):
            self.first, self._count = next(self._lines, ""), self._count + 1
        self._again = [self.first] if self.first else []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self._count += 1
        self.row.append(line)
        return line

    def begin_row(self) -> int:
        """Forget the lines of the last row; return the number of the line in which the next one begins."""
        self.row = []
        return self._count + 1

    def _decoded(self, file: BinaryIO) -> Iterator[str]:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                if raw.startswith(_UTF_16):
                    raise UserError(f'{self._path}: is UTF-16 (Excel\'s "Unicode Text"); save it as CSV in UTF-8')
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = raw[error.start : error.start + 1]
                raise UserError(
                    f"{self._path}, line {number}: is not UTF-8 ({error.reason}: {byte!r} at byte {error.start} of "
                    "the line); save the file as UTF-8"
                ) from error
            *inner, last = text.split("\r")  # old line ends: a carriage return alone
            if last == "\n" and inner:
                last = inner.pop() + "\r\n"
            yield from (line + "\r" for line in inner)
            if last:
                yield last


def _separator(header: str, *, known: Collection[str], usual: str) -> str:
    """The separator of a header: the one that gives the most known names, then the most fields, then the usual one."""

    def fits(separator: str) -> tuple[int, int, bool]:
        names = [name.strip().strip('"').strip().lower() for name in header.split(separator)]
        return len(set(names) & set(known)), len(names), separator == usual

    return max(_SEPARATORS, key=fits)


def _last_opening(lines: list[str], *, separator: str) -> int:
    """The index of the line in which the last quoted field of a row opens; of the first line if there is none."""
    opened, quoted, begins = 0, False, True
    for number, line in enumerate(lines):
        at = 0
        while at < len(line):
            char = line[at]
            if quoted:
                if char == '"' and line[at + 1 : at + 2] == '"':
                    at += 1
                elif char == '"':
                    quoted = False
            elif char == '"' and begins:
                opened, quoted = number, True
            begins = not quoted and (char == separator or char in "\r\n")
            at += 1
    return opened
